-- Shared by the scripts about topics that need more than `core.lua`; making these functions takes longer than a small publish.

local function after(a, b)
  local am, as = parse(a)
  local bm, bs = parse(b)
  return am > bm or (am == bm and as > bs)
end

local function next_id(id)
  local ms, seq = parse(id)
  return whole(ms) .. '-' .. whole(seq + 1)
end

-- A number that grows with the ids.
local function order(id)
  local ms, seq = parse(id)
  return ms and ms + math.min(seq, 4095) / 4096 or 0
end

local function soon(id)
  return string.format('%.4f', math.min(order(id), NOW))
end

local function chunks(list, size, work)
  for first = 1, #list, size do
    work(unpack(list, first, math.min(first + size - 1, #list)))
  end
end

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then
      return fields[i + 1]
    end
  end
end

local function sub_of(name)
  local base = K .. ':sub:' .. name .. ':'
  return {
    name = name, group = 'sub:' .. name, config = base .. 'config', messages = base .. 'messages', locks = base .. 'locks',
    retry = base .. 'retry', blocked = base .. 'blocked', deferred = base .. 'deferred', keys = base .. 'keys', dlq = base .. 'dlq',
    dlq_order = base .. 'dlq-order', stats = base .. 'stats',
  }
end

-- `till` is a text: batches have the same one.
local function pack(token, till, starts, where, key)
  return token .. '|' .. till .. '|' .. starts .. '|' .. where .. '|' .. key
end

-- The messages of one pull mostly have one and the same record. Nobody may change what this returns.
local unpacked = {}
local function unpack_record(text)
  local record = unpacked[text]
  if not record then
    local token, till, starts, where, key = string.match(text, '^([^|]*)|(%d+)|(%d+)|([^|]*)|(.*)$')
    record = { token = token, till = till, starts = tonumber(starts), where = where, key = key }
    unpacked[text] = record
  end
  return record
end

-- Whether a lock of this token is on the message.
local function is_held(record, token)
  return record.token == token and tonumber(record.till) > NOW
end

local function hold(id, fields, position)
  if call('HSETNX', HELD, id, cmsgpack.pack(fields)) == 1 then
    call('ZADD', HELD_ORDER, string.format('%.4f', position), id)
  else
    call('HINCRBY', HELD_REFS, id, 1)
  end
end

local function unhold(id)
  local others = call('HGET', HELD_REFS, id)
  if not others then
    call('HDEL', HELD, id)
    call('ZREM', HELD_ORDER, id)
  elseif tonumber(others) > 1 then
    call('HINCRBY', HELD_REFS, id, -1)
  else
    call('HDEL', HELD_REFS, id)
  end
end

local function entry_of(id, where)
  return where == '' and id or where
end

-- The message, or nothing if it was dropped in the meantime.
local function fields_of(id, where)
  if where == 'h' then
    local body = call('HGET', HELD, id)
    return body and cmsgpack.unpack(body)
  end
  local entry = entry_of(id, where)
  local found = call('XRANGE', K, entry, entry)
  return found[1] and found[1][2]
end

-- Holds a message of the stream beside it. False if it was dropped.
local function park(id, where)
  if where == 'h' then
    return true
  end
  local fields = fields_of(id, where)
  if not fields then
    return false
  end
  hold(id, fields, order(entry_of(id, where)))
  return true
end

-- Blocked messages by ordering key, then position. The length keeps keys apart of which one is the beginning of the other.
local function blocked_prefix(key)
  return #key .. ':' .. key .. ':'
end

local function block(s, id, key, position)
  call('ZADD', s.blocked, 0, blocked_prefix(key) .. string.format('%026.8f', position) .. ':' .. id)
end

local function blocked_id(member, prefix)
  return string.sub(member, #prefix + 28)
end

-- Lets the next message of an ordering key go, if `id` was the one that others waited for.
local function release_key(s, key, id)
  if key == '' or call('HGET', s.keys, key) ~= id then
    return
  end
  local prefix = blocked_prefix(key)
  local found = call('ZRANGEBYLEX', s.blocked, '[' .. prefix, '[' .. prefix .. '\255', 'LIMIT', 0, 1)[1]
  if found then
    local following = blocked_id(found, prefix)
    call('ZREM', s.blocked, found)
    call('HSET', s.keys, key, following)
    call('ZADD', s.retry, soon(following), following)
    wake()
  else
    call('HDEL', s.keys, key)
  end
end

-- Makes a recorded message due, or blocked behind its key.
local function enqueue(s, id, key, position)
  if key ~= '' then
    local holder = call('HGET', s.keys, key)
    if holder and holder ~= id then
      block(s, id, key, position)
      return
    end
    call('HSET', s.keys, key, id)
  end
  call('ZADD', s.retry, soon(id), id)
end

-- The subscription is done with a message.
local function forget(s, id, record)
  call('HDEL', s.messages, id)
  call('ZREM', s.locks, id)
  call('ZREM', s.retry, id)
  call('ZREM', s.deferred, id)
  if record.where == 'h' then
    unhold(id)
  end
  release_key(s, record.key, id)
end

local function bury(s, keep, id, fields, starts, reason)
  if not (keep and fields) then
    return
  end
  local at = math.max(NOW_US, tonumber(call('HGET', s.stats, 'buried') or '0') + 1)
  call('HSET', s.stats, 'buried', whole(at))
  call('HSET', s.dlq, id, cmsgpack.pack({ fields, reason, starts, whole(at) }))
  call('ZADD', s.dlq_order, whole(at), id)
end

local function remove_sub(name)
  local s = sub_of(name)
  local existed = call('SREM', SUBS, name)
  local records = call('HGETALL', s.messages)
  for i = 1, #records, 2 do
    if unpack_record(records[i + 1]).where == 'h' then
      unhold(records[i])
    end
  end
  redis.pcall('XGROUP', 'DESTROY', K, s.group)
  call('DEL', s.config, s.messages, s.locks, s.retry, s.blocked, s.deferred, s.keys, s.dlq, s.dlq_order, s.stats)
  return existed
end

-- The topic's options as a script needs them, or a reply for the caller. Idle subscriptions are looked for in the first shard alone.
-- `REVISION` says whether its options are still those that somebody saw.
local REVISION = ''
local function enter(shards)
  local m = call('HMGET', META, 'shards', 'max', 'overflow', 'ttl', 'dedup', 'auto', 'rev')
  REVISION = m[7] or ''
  if not m[1] then
    return nil, { 'notopic' }
  elseif m[1] ~= shards then
    return nil, { 'stale' }
  end
  if m[6] and not string.find(K, '#%d+}$') then
    local reply = { shards == '1' and 'reaped' or 'idle' }
    for _, name in ipairs(call('SMEMBERS', SUBS)) do
      local s = sub_of(name)
      local c = call('HMGET', s.config, 'auto', 'seen')
      if c[1] and c[1] ~= '' and NOW - tonumber(c[2]) > tonumber(c[1]) then
        if call('ZCOUNT', s.locks, '(' .. whole(NOW), '+inf') > 0 then
          -- Somebody is at work on a message: that is use.
          call('HSET', s.config, 'seen', whole(NOW))
        elseif shards == '1' then
          remove_sub(name)
          reply[#reply + 1] = name
        else
          -- It may be in use in other shards.
          reply[#reply + 1] = name
          reply[#reply + 1] = c[2]
        end
      end
    end
    if #reply > 1 then
      if shards == '1' then
        wake()
      end
      return nil, reply
    end
  end
  return { max = tonumber(m[2]), overflow = m[3], ttl = tonumber(m[4] or ''), dedup = tonumber(m[5]) }
end

local function config_of(s)
  local c = call('HMGET', s.config, 'visibility', 'deliveries', 'backoff', 'jitter', 'dlq', 'auto', 'paused', 'version', 'filter', 'begin')
  if not c[8] then
    return nil
  end
  return {
    visibility = tonumber(c[1]), deliveries = tonumber(c[2]), backoff = c[3], jitter = tonumber(c[4]), keep = c[5] == '1',
    auto = c[6] ~= '', paused = c[7] == '1', version = c[8], filter = c[9], begin = c[10],
  }
end

-- How the scripts about one subscription begin. Answers what it has and its options, or nothing and the reply.
local function enter_sub()
  local topic, reply = enter(ARGV[1])
  if not topic then
    return nil, reply
  end
  local s = sub_of(ARGV[2])
  local c = config_of(s)
  if not c then
    return nil, { 'nosub' }
  end
  return s, c
end

-- Scheduled messages whose time has come go to the end of the stream.
local function promote()
  local ids = call('ZRANGEBYSCORE', SCHED, '-inf', NOW, 'LIMIT', 0, 200)
  for _, id in ipairs(ids) do
    local body = call('HGET', SCHED_BODY, id)
    if body then
      local fields = cmsgpack.unpack(body)
      fields[#fields + 1] = 'id'
      fields[#fields + 1] = id
      call('XADD', K, mint(), unpack(fields))
      call('HDEL', SCHED_BODY, id)
    end
    call('ZREM', SCHED, id)
  end
  if #ids > 0 then
    keep_minted()
  end
end

-- Group name to the last entry it was given. Without subscriptions there may be no stream to ask about.
local function positions()
  local found = {}
  if call('SCARD', SUBS) > 0 then
    for _, group in ipairs(call('XINFO', 'GROUPS', K)) do
      found[field(group, 'name')] = { last = field(group, 'last-delivered-id'), lag = field(group, 'lag') }
    end
  end
  return found
end

-- Cuts off what every subscription has read and settled. What is still in flight there is held beside the stream if it was in the way for a second
-- already, or if `all` asks for it: then only unread entries stay. Whole nodes are cheap to cut off; unless it is to be exact, the rest goes with the
-- next one.
local function trim(all, exact)
  local cut
  local groups = positions()
  for _, group in pairs(groups) do
    if not cut or after(cut, group.last) then
      cut = group.last
    end
  end
  if not cut then
    return
  end
  local marked = call('HMGET', META, 'mark', 'marked')
  local mark, old = marked[1] or '0-0', all or NOW - tonumber(marked[2] or '0') >= 1000
  local least = next_id(cut)
  for _, name in ipairs(call('SMEMBERS', SUBS)) do
    local s = sub_of(name)
    local ids = call('ZRANGE', s.locks, 0, -1)
    for first = 1, #ids, 1000 do
      local last = math.min(first + 999, #ids)
      local records = call('HMGET', s.messages, unpack(ids, first, last))
      for i = first, last do
        local text = records[i - first + 1]
        local record = text and unpack_record(text)
        if record and record.where ~= 'h' then
          local id = ids[i]
          local entry = entry_of(id, record.where)
          if not after(entry, cut) then
            if not (all or old and not after(entry, mark)) then
              if after(least, entry) then
                least = entry
              end
            elseif park(id, record.where) then
              call('HSET', s.messages, id, pack(record.token, record.till, record.starts, 'h', record.key))
            end
          end
        end
      end
    end
  end
  call('XTRIM', K, 'MINID', (all or exact) and '=' or '~', least)
  if old then
    call('HSET', META, 'mark', cut, 'marked', whole(NOW))
  end
end

-- How many messages somebody still needs, after trim(true).
local function owed()
  local n = call('XLEN', K) + call('ZCARD', HELD_ORDER) + call('ZCARD', SCHED)
  local first = call('XRANGE', K, '-', '+', 'COUNT', 1)[1]
  if first then
    n = n - call('ZCOUNT', HELD_ORDER, string.format('%.4f', order(first[1])), '+inf')
  end
  return n
end

-- How many entries of the stream a group has not read.
local function unread(group)
  local length = call('XLEN', K)
  if length == 0 then
    return 0
  end
  local first = call('XRANGE', K, '-', '+', 'COUNT', 1)[1][1]
  if after(first, group.last) then
    return length
  end
  if group.lag then
    return tonumber(group.lag)
  end
  -- Older servers don't know, and newer ones not always.
  local n, from = 0, next_id(group.last)
  while true do
    local page = call('XRANGE', K, from, '+', 'COUNT', 500)
    n = n + #page
    if #page < 500 then
      return n
    end
    from = next_id(page[#page][1])
  end
end

-- When something becomes due at the earliest, in milliseconds from now, or -1.
local function next_due(s)
  local least
  for _, key in ipairs({ s.retry, s.locks, SCHED }) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] and (not least or tonumber(first[2]) < least) then
      least = tonumber(first[2])
    end
  end
  return least and math.max(0, math.ceil(least - NOW)) or -1
end
