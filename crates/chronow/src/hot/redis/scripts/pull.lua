-- ARGV: shards, subscription, max, token, version of the options the caller has compiled, how many of the first to start at once
--
-- Handed out are entries as the stream has them, {id, fields}, or {id, starts, fields} if there is more to say.
local s, c = enter_sub()
if not s then
  return c
end
if c.auto then
  call('HSET', s.config, 'seen', whole(NOW))
end
local filter = c.version ~= ARGV[5] and c.filter or false
if c.paused then
  return { 'ok', c.version, filter, '0', 0, {}, -1, REVISION }
end
-- What the filter leaves out, which the caller finds out, is never started.
local max, token, start = tonumber(ARGV[3]), ARGV[4], c.filter == '' and tonumber(ARGV[6]) or 0
local till = whole(NOW + c.visibility)
local out, count, records, locks, keys = {}, 0, {}, {}, {}

-- The payload of a claim has to be fetched before its handler starts, so the pull starts nothing from there on.
local CLAIM = 'application/vnd.chronow.claim'
-- Whether a filter leaves it out is found out by the caller, who must not make a dead letter of it then: -1 says that its time is over.
local filtered = (c.filter or '') ~= ''
local function hand_out(id, starts, where, key, fields, late)
  local n = count + 1
  count = n
  if n <= start and field(fields, 'type') == CLAIM then
    start = n - 1
  end
  out[n] = { id, late and -1 or starts, fields }
  records[2 * n - 1], records[2 * n] = id, pack(token, till, n <= start and starts + 1 or starts, where, key)
  locks[2 * n - 1], locks[2 * n] = till, id
end

-- Most messages are like this.
local plain, plain_started = pack(token, till, 0, '', ''), pack(token, till, 1, '', '')
local function hand_out_plain(entry, kind)
  local n, id = count + 1, entry[1]
  count = n
  if n <= start and kind == CLAIM then
    start = n - 1
  end
  out[n] = entry
  records[2 * n - 1], records[2 * n] = id, n <= start and plain_started or plain
  locks[2 * n - 1], locks[2 * n] = till, id
end

local function expired(fields)
  local limit = field(fields, 'until')
  return limit and tonumber(limit) <= NOW
end

promote()

-- Messages whose lock expired, then those that are due.
local function again(ids, why)
  for _, id in ipairs(ids) do
    local text = call('HGET', s.messages, id)
    local record = text and unpack_record(text)
    local fields = record and fields_of(id, record.where)
    local late = fields and record.starts == 0 and expired(fields)
    if not fields then
      forget(s, id, record or { where = '', key = '' })
    elseif record.starts >= c.deliveries then
      bury(s, c.keep, id, fields, record.starts, why)
      forget(s, id, record)
    elseif late and not filtered then
      bury(s, c.keep, id, fields, 0, 'expired')
      forget(s, id, record)
    else
      local holder = record.key ~= '' and call('HGET', s.keys, record.key)
      if holder and holder ~= id then
        call('ZREM', s.retry, id)
        call('ZREM', s.locks, id)
        if park(id, record.where) then
          call('HSET', s.messages, id, pack('', 0, record.starts, 'h', record.key))
          block(s, id, record.key, order(id))
        end
      else
        if record.key ~= '' and not holder then
          call('HSET', s.keys, record.key, id)
        end
        call('ZREM', s.retry, id)
        hand_out(id, record.starts, record.where, record.key, fields, late)
      end
    end
  end
end

again(call('ZRANGEBYSCORE', s.locks, '-inf', NOW, 'LIMIT', 0, max), 'the lock expired at the last delivery')
-- A message that leaves may free the next one of its key, which is due then.
local rounds = 0
while count < max and rounds < 10 do
  local ids = call('ZRANGEBYSCORE', s.retry, '-inf', NOW, 'LIMIT', 0, max - count)
  if #ids == 0 then
    break
  end
  again(ids, 'the deliveries were used up')
  rounds = rounds + 1
end

-- New ones. The group only keeps the position: a pending list beside our records would cost more than all the rest.
local left, bytes, more = max * 4 + 100, 0, false
while count < max do
  local size = math.min(max - count, 100)
  local read = call('XREADGROUP', 'GROUP', s.group, 'chronow', 'COUNT', size, 'NOACK', 'STREAMS', K, '>')
  local entries = read and read[1] and read[1][2] or {}
  for n = 1, #entries do
    local entry = entries[n]
    local fields, where = entry[2], ''
    local id, key, limit, kind = entry[1], '', nil, nil
    local first = 1
    if fields[1] == 'payload' then
      -- As we write it. Often there is no more.
      bytes, first = bytes + #fields[2], 3
    end
    for i = first, #fields, 2 do
      local name = fields[i]
      if name == 'payload' then
        bytes = bytes + #fields[i + 1]
      elseif name == 'key' then
        key = fields[i + 1]
      elseif name == 'id' then
        id, where = fields[i + 1], entry[1]
      elseif name == 'until' then
        limit = tonumber(fields[i + 1])
      elseif name == 'type' then
        kind = fields[i + 1]
      end
    end
    -- What was scheduled before this subscription began is not its own.
    local own = where == '' or after(id, c.begin)
    local late = limit and limit <= NOW
    if own and late and not filtered then
      bury(s, c.keep, id, fields, 0, 'expired')
    elseif own and key == '' and where == '' and not late then
      hand_out_plain(entry, kind)
    elseif own and key == '' then
      hand_out(id, 0, where, key, fields, late)
    elseif own and (keys[key] or call('HEXISTS', s.keys, key) == 1) then
      keys[key] = true
      hold(id, fields, order(entry[1]))
      call('HSET', s.messages, id, pack('', 0, 0, 'h', key))
      block(s, id, key, order(id))
    elseif own then
      keys[key] = true
      call('HSET', s.keys, key, id)
      hand_out(id, 0, where, key, fields, late)
    end
  end
  if #entries < size then
    break
  end
  left = left - #entries
  if left <= 0 or bytes > 8388608 then
    more = true
    break
  end
end

-- Redis looks through small hashes and sorted sets from their begin to what it wants, which batches pay for each of theirs. A long text, for a
-- moment, makes them what large ones are.
local large = count >= 32 and string.rep('-', 65)
if large then
  call('HSET', s.messages, large, '')
  call('ZADD', s.locks, 0, large)
end
chunks(records, 2000, function(...) call('HSET', s.messages, ...) end)
chunks(locks, 2000, function(...) call('ZADD', s.locks, ...) end)
if large then
  call('HDEL', s.messages, large)
  call('ZREM', s.locks, large)
end
local started = math.min(start, count)
if started > 0 then
  call('HINCRBY', s.stats, 'deliveries', started)
end
if count == 0 and not more and call('XLEN', K) > 0 then
  trim(false, true)
end
return { 'ok', c.version, filter, till, started, out, more and 0 or next_due(s), REVISION }
