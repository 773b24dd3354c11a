-- ARGV: shards and generation, subscription, max, token, version of the options the caller has compiled, how many of the first to
-- start at once, and if there is a filter: the entry behind which the caller was shown some, the last one it says something about, those that pass.
--
-- Handed out are entries as the stream has them, {id, fields}, or {id, starts, fields} if there is more to say.
local s, c = enter_sub()
if not s then
  return c
end
local filter = c.version ~= ARGV[5] and c.filter or false
if c.paused then
  used(s, c)
  return { 'ok', c.version, filter, '0', 0, {}, -1, c.auto or '', c.at, {}, REVISION }
end
-- What the filter leaves out, which the caller finds out, is never started.
local max, token, start = tonumber(ARGV[3]), ARGV[4], c.filter == '' and tonumber(ARGV[6]) or 0
local till = whole(NOW + c.visibility)
local out, count, records, locks, orders, keys = {}, 0, {}, {}, {}, {}
-- How much more may be looked at.
local left, bytes = max * 4 + 100, MAX_BYTES

-- The payload of a claim has to be fetched before its handler starts, so the pull starts nothing from there on.
local CLAIM = 'application/vnd.chronow.claim'
-- Whether a filter leaves it out is found out by the caller, who must not make a dead letter of it then: -1 says that its time is over.
local filtered = (c.filter or '') ~= ''
local function hand_out(id, starts, where, key, fields, late, number)
  local n = count + 1
  count = n
  if number then
    orders[#orders + 1], orders[#orders + 2] = number, id
  end
  if n <= start and field(fields, 'type') == CLAIM then
    start = n - 1
  end
  out[n] = { id, late and -1 or starts, fields }
  records[2 * n - 1], records[2 * n] = id, pack(token, till, n <= start and starts + 1 or starts, where, key)
  locks[2 * n - 1], locks[2 * n] = till, id
end

-- Most messages are like this.
local plain, plain_started = pack(token, till, 0, '', ''), pack(token, till, 1, '', '')
local function hand_out_plain(entry, kind, number)
  local n, id = count + 1, entry[1]
  count = n
  orders[#orders + 1], orders[#orders + 2] = number, id
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
    if bytes <= 0 then
      return
    end
    local text = call('HGET', s.messages, id)
    local record = text and unpack_record(text)
    local fields = record and fields_of(id, record.where)
    local late = fields and record.starts == 0 and expired(fields)
    bytes = bytes - (fields and size_of(fields) or 0)
    if not fields then
      forget(s, id, record or { where = '', key = '' })
    elseif record.starts >= c.deliveries then
      dead_letter(s, c.keep, id, fields, record.starts, why)
      forget(s, id, record)
    elseif late and not filtered then
      dead_letter(s, c.keep, id, fields, 0, 'expired')
      forget(s, id, record)
    else
      local holder = record.key ~= '' and call('HGET', s.keys, record.key)
      if holder and holder ~= id then
        call('ZREM', s.retry, id)
        call('ZREM', s.locks, id)
        if park(s, id, record.where) then
          call('HSET', s.messages, id, pack('', 0, record.starts, 'h', record.key))
          block(s, id, record.key)
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

-- New ones, in pages that grow while messages are small.
local size, read, more = 16, c.read, bytes <= 0
if c.ahead and c.read < ADDED then
  -- It began behind what there was: all that came before its place is not its own.
  local from, own = c.at, 0
  repeat
    local page = call('XRANGE', K, '(' .. from, '+', 'COUNT', 200)
    own = own + #page
    from = page[1] and page[#page][1]
  until #page < 200
  read = ADDED - own
  if own > 0 then
    call('HDEL', s.config, 'ahead')
  end
end
-- One new message, which the filter lets pass if there is one.
local function take(entry, number)
  local fields, where = entry[2], ''
  local id, key, limit, kind = entry[1], '', nil, nil
  local first = 1
  if fields[1] == 'payload' then
    -- As we write it. Often there is no more.
    bytes, first = bytes - #fields[2], 3
  end
  for i = first, #fields, 2 do
    local name = fields[i]
    if name == 'payload' then
      bytes = bytes - #fields[i + 1]
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
  if own and late then
    dead_letter(s, c.keep, id, fields, 0, 'expired')
  elseif own and key == '' and where == '' then
    hand_out_plain(entry, kind, number)
  elseif own and key == '' then
    hand_out(id, 0, where, key, fields, late, number)
  elseif own and (keys[key] or call('HEXISTS', s.keys, key) == 1) then
    keys[key] = true
    hold(id, fields, number)
    call('HSET', s.messages, id, pack('', 0, 0, 'h', key))
    call('ZADD', s.order, BESIDE, id)
    block(s, id, key)
  elseif own then
    keys[key] = true
    call('HSET', s.keys, key, id)
    hand_out(id, 0, where, key, fields, late, number)
  end
end

-- The caller says which of the messages it was shown the filter lets pass, and is shown more; it may have been overtaken by another one.
local page = {}
if filtered and c.version == ARGV[5] and ARGV[7] == c.at and not more then
  local passing, skipped = {}, 0
  for i = 9, #ARGV do
    passing[ARGV[i]] = true
  end
  for _, entry in ipairs(call('XRANGE', K, '(' .. c.at, ARGV[8], 'COUNT', 200)) do
    local passes = passing[entry[1]]
    if passes and count >= max then
      break
    elseif passes then
      take(entry, read + 1)
    else
      skipped = skipped + 1
    end
    read, c.at = read + 1, entry[1]
  end
  if skipped > 0 then
    call('HINCRBY', s.stats, 'skipped', skipped)
  end
end
-- What a filter asks of headers can be seen here: for each name the values of which a message must have one.
local sieve = filtered and c.sieve and c.sieve ~= '' and cjson.decode(c.sieve)
local function falls_through(fields)
  local headers = sieve and (field(fields, 'headers') or '{}')
  local known, values = pcall(cjson.decode, headers)
  if not sieve or not known then
    return false
  end
  for _, one in ipairs(sieve) do
    local found = false
    for _, value in ipairs(one[2]) do
      found = found or values[one[1]] == value
    end
    if not found then
      return true
    end
  end
  return false
end

if filtered and count < max and read < ADDED then
  local seen, shown, last, skipped, over = 0, 0, c.at, 0, false
  while #page < 200 and seen < 2000 and shown < 1048576 do
    local entries = call('XRANGE', K, '(' .. last, '+', 'COUNT', size)
    for _, entry in ipairs(entries) do
      last, seen, shown = entry[1], seen + 1, shown + size_of(entry[2])
      if not falls_through(entry[2]) then
        page[#page + 1] = entry
      elseif #page == 0 then
        read, c.at, skipped = read + 1, last, skipped + 1
      end
    end
    over = #entries < size
    if over then
      break
    end
    size = math.max(1, math.min(200 - #page, math.floor(seen * 1048576 / math.max(shown, 1))))
  end
  if skipped > 0 then
    call('HINCRBY', s.stats, 'skipped', skipped)
  end
  if over and #page == 0 then
    read = ADDED
  end
  more = not over
end
while not filtered and count < max and not more do
  size = math.min(size, max - count, 200)
  local entries = read < ADDED and call('XRANGE', K, '(' .. c.at, '+', 'COUNT', size) or {}
  local before = bytes
  for n = 1, #entries do
    take(entries[n], read + n)
  end
  read = read + #entries
  if #entries > 0 then
    c.at = entries[#entries][1]
  end
  if #entries < size then
    read = ADDED
    break
  end
  left = left - #entries
  more = left <= 0 or bytes <= 0
  -- As many as fit if they are like these.
  size = math.max(1, math.floor(#entries * bytes / math.max(before - bytes, 1)))
end
if read ~= c.read then
  c.read = read
  call('HSET', s.config, 'at', c.at, 'read', whole(read))
end

-- Redis looks through small hashes and sorted sets from their begin to what it wants, which batches pay for each of theirs. A long text, for a
-- moment, makes them what large ones are.
local large = count >= 32 and string.rep('-', 65)
if large then
  call('HSET', s.messages, large, '')
  call('ZADD', s.locks, 0, large)
  call('ZADD', s.order, 0, large)
end
chunks(records, 2000, function(...) call('HSET', s.messages, ...) end)
chunks(locks, 2000, function(...) call('ZADD', s.locks, ...) end)
chunks(orders, 2000, function(...) call('ZADD', s.order, ...) end)
if large then
  call('HDEL', s.messages, large)
  call('ZREM', s.locks, large)
  call('ZREM', s.order, large)
end
local started = math.min(start, count)
if started > 0 then
  call('HINCRBY', s.stats, 'deliveries', started)
end
if count == 0 and not more then
  trim(s, c)
end
used(s, c, count > 0 and tonumber(till))
if more or count == max then
  -- There is something left for another one.
  s.wakes = true
end
wake_own(s)
return { 'ok', c.version, filter, till, started, out, (more or #page > 0) and 0 or next_due(s), c.auto or '', c.at, page, REVISION }
