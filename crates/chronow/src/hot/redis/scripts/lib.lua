-- Shared by the scripts about topics that need more than `core.lua`; making these functions takes longer than a small publish.

-- No script touches more bytes of messages than this and one page.
local MAX_BYTES = 4194304

local function after(a, b)
  local am, as = parse(a)
  local bm, bs = parse(b)
  return am > bm or (am == bm and as > bs)
end

-- A number that grows with the ids, the same for new ones of one millisecond: those are in order as texts.
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

local function size_of(fields)
  local bytes = 0
  for i = 2, #fields, 2 do
    bytes = bytes + #fields[i]
  end
  return bytes
end

-- What makes room is not refused for want of memory: a server that is full refuses what may take some as the first change of a script alone.
local function begin_draining()
  call('HDEL', META, '-')
end

local function sub_of(name)
  local base = K .. ':sub:' .. name .. ':'
  return {
    name = name, config = base .. 'config', messages = base .. 'messages', order = base .. 'order', locks = base .. 'locks',
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

-- `number` is that of its entry, 0 or less if it may have none any more.
local function hold(id, fields, number)
  if call('HSETNX', HELD, id, cmsgpack.pack(fields)) == 1 then
    call('ZADD', HELD_ORDER, number, id)
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

-- A subscription's messages are in order: those that lie in the stream by the number of their entry, those held beside it under -1.
local BESIDE = '-1'

-- Holds a message of the stream beside it. False if it was dropped.
local function park(s, id, where)
  if where == 'h' then
    return true
  end
  local fields = fields_of(id, where)
  if not fields then
    return false
  end
  hold(id, fields, call('ZSCORE', s.order, id) or '0')
  call('ZADD', s.order, BESIDE, id)
  return true
end

-- Blocked messages by ordering key, then position. The length keeps keys apart of which one is the beginning of the other.
local function blocked_prefix(key)
  return #key .. ':' .. key .. ':'
end

local function block(s, id, key)
  call('ZADD', s.blocked, 0, blocked_prefix(key) .. string.format('%026.8f', order(id)) .. ':' .. id)
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
    s.wakes = true
  else
    call('HDEL', s.keys, key)
  end
end

-- Makes a recorded message due, or blocked behind its key.
local function enqueue(s, id, key)
  if key ~= '' then
    local holder = call('HGET', s.keys, key)
    if holder and holder ~= id then
      block(s, id, key)
      return
    end
    call('HSET', s.keys, key, id)
  end
  call('ZADD', s.retry, soon(id), id)
end

-- Puts a message of earlier into one subscription. Its entry may be any of those there were, if there is one: that is what the negative number says.
local function put_beside(s, id, fields, key)
  hold(id, fields, whole(-ADDED))
  call('HSET', s.messages, id, pack('', 0, 0, 'h', key))
  call('ZADD', s.order, BESIDE, id)
  enqueue(s, id, key)
end

-- The subscription is done with a message.
local function forget(s, id, record)
  call('HDEL', s.messages, id)
  call('ZREM', s.order, id)
  call('ZREM', s.locks, id)
  call('ZREM', s.retry, id)
  call('ZREM', s.deferred, id)
  if record.where == 'h' then
    unhold(id)
  end
  release_key(s, record.key, id)
end

local function dead_letter(s, keep, id, fields, starts, reason)
  if not (keep and fields) then
    return
  end
  local at = math.max(NOW_US, tonumber(call('HGET', s.stats, 'buried') or '0') + 1)
  call('HSET', s.stats, 'buried', whole(at))
  call('HSET', s.dlq, id, cmsgpack.pack({ fields, reason, starts, whole(at) }))
  call('ZADD', s.dlq_order, whole(at), id)
end

-- The topic's options as a script needs them, or a reply for the caller. Idle subscriptions are looked for in the first shard alone.
-- `REVISION` says whether its options are still those that a caller saw.
local REVISION = ''
local function enter(stamp)
  local m = call('HMGET', META, 'stamp', 'max', 'overflow', 'ttl', 'dedup', 'auto', 'last', 'added', 'purged', 'dropped', 'rev', 'news')
  REVISION = (m[11] or '') .. '.' .. (m[12] or '')
  if not m[1] then
    return nil, { call('HEXISTS', META, 'shards') == 1 and 'old' or 'notopic' }
  elseif m[1] ~= stamp then
    return nil, { 'stale', m[1] }
  end
  if m[6] then
    local idle = call('ZRANGEBYSCORE', IDLE, '-inf', NOW, 'LIMIT', 0, 20)
    if #idle > 0 then
      return nil, { 'idle', unpack(idle) }
    end
  end
  know_last(m[7])
  ADDED = tonumber(m[8])
  return { max = tonumber(m[2]), overflow = m[3], ttl = tonumber(m[4] or ''), dedup = tonumber(m[5]), purged = m[9] or '', dropped = m[10] }
end

local function config_of(s)
  local c = call('HMGET', s.config, 'visibility', 'deliveries', 'backoff', 'jitter', 'dlq', 'auto', 'paused', 'version', 'filter', 'begin', 'at', 'read',
    'floor', 'purged', 'ahead', 'dying', 'mark', 'marked', 'sieve')
  if not c[8] or c[16] then
    return nil
  end
  return {
    visibility = tonumber(c[1]), deliveries = tonumber(c[2]), backoff = c[3], jitter = tonumber(c[4]), keep = c[5] == '1',
    auto = tonumber(c[6]), paused = c[7] == '1', version = c[8], filter = c[9], begin = c[10], at = c[11], read = tonumber(c[12]),
    floor = tonumber(c[13]), purged = c[14], ahead = c[15], mark = tonumber(c[17]), marked = tonumber(c[18]), sieve = c[19],
  }
end

-- After the topic was purged, a subscription knows that the messages it had are gone only when it is asked for something. The mark says which purge,
-- which entry was the last one then, and its number.
local function purged(s, c, topic, looking)
  if c.purged == topic.purged then
    return
  end
  local at, read = string.match(topic.purged, '^%d+|([^|]*)|(%d+)$')
  if after(at, c.at) then
    c.at, c.read = at, tonumber(read)
  end
  if looking then
    s.emptied = true
    return
  end
  call('UNLINK', s.messages, s.order, s.locks, s.retry, s.blocked, s.deferred, s.keys)
  call('HSET', s.config, 'purged', topic.purged, 'at', c.at, 'read', whole(c.read))
end

-- How the scripts about one subscription begin. Answers what it has and its options, or nothing and the reply.
local function enter_sub(looking)
  local topic, reply = enter(ARGV[1])
  if not topic then
    return nil, reply
  end
  local s = sub_of(ARGV[2])
  local c = config_of(s)
  if not c then
    return nil, { 'nosub' }
  end
  if not looking then
    begin_draining()
  end
  purged(s, c, topic, looking)
  if topic.dropped then
    -- That cannot be read any more.
    s.first = ADDED - call('XLEN', K) + 1
    c.read = math.max(c.read, s.first - 1)
  end
  return s, c
end

-- The record of a message, unless the topic has dropped the message: then the subscription forgets it.
local function undropped(s, id, record)
  if not (s.first and record) then
    return record
  end
  local there
  if record.where == 'h' then
    there = call('HEXISTS', HELD, id) == 1
  else
    there = tonumber(call('ZSCORE', s.order, id) or BESIDE) >= s.first
  end
  if not there then
    forget(s, id, record)
  end
  return there and record
end

-- A consumer is at work on a subscription that is removed when idle; the first shard knows until when it is not.
local function used(s, c, till)
  if c.auto and not string.find(K, '#%d+}$') then
    call('ZADD', IDLE, whole(math.max(NOW + c.auto, till or 0)), s.name)
  end
end

-- Scheduled messages whose time has come go to the end of the stream.
local function promote()
  local ids = call('ZRANGEBYSCORE', SCHED, '-inf', NOW, 'LIMIT', 0, 200)
  local bytes, put = 0, 0
  for _, id in ipairs(ids) do
    local body = call('HGET', SCHED_BODY, id)
    if body then
      local fields = cmsgpack.unpack(body)
      fields[#fields + 1] = 'id'
      fields[#fields + 1] = id
      call('XADD', K, mint(), unpack(fields))
      call('HDEL', SCHED_BODY, id)
      put, bytes = put + 1, bytes + #body
    end
    call('ZREM', SCHED, id)
    call('ZREM', SCHED_IDS, id)
    if bytes > MAX_BYTES then
      break
    end
  end
  if put > 0 then
    keep_minted(put)
    wake_each()
  end
end

-- The entries up to this number are settled, or held beside the stream.
local function ack_floor_of(s, c)
  local first = call('ZRANGEBYSCORE', s.order, 0, '+inf', 'LIMIT', 0, 1, 'WITHSCORES')
  return first[2] and math.min(tonumber(first[2]) - 1, c.read) or c.read
end

-- How many entries a subscription may still need: those at the end of the stream. Nothing if there are no subscriptions.
local function needed_entries()
  local least = call('ZRANGE', ACK_FLOORS, 0, 0, 'WITHSCORES')[2]
  return least and math.max(0, ADDED - tonumber(least))
end

-- Cuts the stream off before these.
local function cut()
  local keep = needed_entries()
  local surplus = keep and call('XLEN', K) - keep or 0
  if surplus > 2000 then
    -- Whole nodes, and not all at once: the next one goes on.
    call('XTRIM', K, 'MAXLEN', '~', whole(keep))
  elseif surplus > 0 then
    call('XTRIM', K, 'MAXLEN', whole(keep))
  end
end

-- Says up to where this subscription needs nothing, and cuts off what that makes free. What is in flight and in the way is held beside the stream if
-- it was so for a second already, or if `all` asks for it; not too many at once. Answers whether something came of it.
local function trim(s, c, all)
  local ack_floor = ack_floor_of(s, c)
  local old = all or not c.marked or NOW - c.marked >= 1000
  if ack_floor < c.read and old then
    local limit = all and c.read or c.mark or 0
    -- Only if something that is settled lies behind it.
    if c.read - ack_floor > call('ZCOUNT', s.order, 0, '+inf') then
      local bytes = 0
      for _, id in ipairs(call('ZRANGEBYSCORE', s.order, 0, whole(limit), 'LIMIT', 0, 500)) do
        local text = call('HGET', s.messages, id)
        local record = text and unpack_record(text)
        if not record then
          call('ZREM', s.order, id)
        elseif park(s, id, record.where) then
          call('HSET', s.messages, id, pack(record.token, record.till, record.starts, 'h', record.key))
        else
          -- Dropped: the next call that meets it forgets it.
          call('ZADD', s.order, BESIDE, id)
        end
        bytes = bytes + (record and #(call('HGET', HELD, id) or '') or 0)
        if bytes > MAX_BYTES then
          break
        end
      end
      ack_floor = ack_floor_of(s, c)
    end
  end
  if old and (c.mark ~= c.read) then
    call('HSET', s.config, 'mark', whole(c.read), 'marked', whole(NOW))
  end
  if ack_floor == c.floor then
    return false
  end
  call('HSET', s.config, 'floor', whole(ack_floor))
  call('ZADD', ACK_FLOORS, whole(ack_floor), s.name)
  cut()
  return true
end

-- How many messages the shard holds that a subscription needs.
local function owed()
  local length = call('XLEN', K)
  length = math.min(length, needed_entries() or length)
  return length + call('ZCARD', HELD_ORDER) + call('ZCARD', SCHED) - call('ZCOUNT', HELD_ORDER, whole(ADDED - length + 1), '+inf')
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

local function wake_own(s)
  if s.wakes then
    wake(s.name)
  end
end
