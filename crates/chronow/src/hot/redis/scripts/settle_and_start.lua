-- ARGV: shards and generation, subscription, number of groups of acknowledged ones, for each its token, how many, and their ids; number settled otherwise, for each
-- id, token, how (retry, dead, refuse, defer, release, skip), wait ('' for the backoff), chance of the jitter, reason; number of groups of those to
-- start, as the first ones. Answers for each of the first D (done), X (a dead letter), L (lost), A (ask again: these were large), and for each of the
-- others 1 if it was started.
local s, c = enter_sub()
if not s then
  return c
end


-- The records of these messages as far as the token holds them. One that is named twice is held once.
local seen = {}
local function holding(first, last, token)
  local records, held, n = {}, {}, 0
  for from = first, last, 1000 do
    local till = math.min(from + 999, last)
    local texts = call('HMGET', s.messages, unpack(ARGV, from, till))
    for i = 1, till - from + 1 do
      local id, text = ARGV[from + i - 1], texts[i]
      local record = false
      if text and not seen[id] then
        if held[text] == nil then
          local found = unpack_record(text)
          held[text] = is_held(found, token) and found
        end
        record = undropped(s, id, held[text])
        seen[id] = record and true
      end
      n = n + 1
      records[n] = record
    end
  end
  return records
end

-- Reads groups of messages of one token each, and gives each to `work`. Returns where they end.
local function groups(at, work)
  local count = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, count do
    local size = tonumber(ARGV[at + 1])
    work(ARGV[at], at + 2, at + 1 + size)
    at = at + 2 + size
  end
  return at
end

local function remove(gone, counter)
  if #gone == 0 then
    return
  end
  chunks(gone, 1000, function(...)
    call('HDEL', s.messages, ...)
    call('ZREM', s.order, ...)
    call('ZREM', s.locks, ...)
  end)
  local total = call('HINCRBY', s.stats, counter, #gone)
  -- Now and then, so that a settlement costs little.
  if math.floor(total / 64) ~= math.floor((total - #gone) / 64) then
    trim(s, c)
  end
end

local function let_go(id, record)
  if record.where == 'h' then
    unhold(id)
  end
  if record.key ~= '' then
    release_key(s, record.key, id)
  end
end

local function backoff(starts, chance)
  local waits = {}
  for text in string.gmatch(c.backoff, '%d+') do
    waits[#waits + 1] = tonumber(text)
  end
  local base = waits[math.min(math.max(starts, 1), #waits)] or 0
  return math.floor(base * (1 + chance * c.jitter / 100))
end

local settled, gone, special = {}, {}, {}
local answered, acked = 0, 0
local at = groups(3, function(token, first, last)
  for n, record in ipairs(holding(first, last, token)) do
    answered = answered + 1
    if record then
      local id = ARGV[first + n - 1]
      acked = acked + 1
      gone[acked] = id
      settled[answered] = 'D'
      if record.where == 'h' or record.key ~= '' then
        special[#special + 1] = { id, record }
      end
    else
      settled[answered] = 'L'
    end
  end
end)
remove(gone, 'acked')
for _, one in ipairs(special) do
  let_go(one[1], one[2])
end

local others = tonumber(ARGV[at])
local first = at + 1
at = first + 6 * others
if others > 0 then
  local skipped, bytes = {}, 0
  for i = first, at - 1, 6 do
    local id, how, wait, chance, reason = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
    local record = bytes <= MAX_BYTES and holding(i, i, ARGV[i + 1])[1]
    local fields = record and how ~= 'skip' and (how == 'refuse' or how == 'dead' or record.where ~= 'h' or record.starts >= c.deliveries)
      and fields_of(id, record.where)
    bytes = bytes + (fields and size_of(fields) or 0)
    local outcome = 'D'
    if bytes > MAX_BYTES and not record then
      outcome = 'A'
    elseif not record then
      outcome = 'L'
    elseif how == 'skip' then
      skipped[#skipped + 1] = id
      let_go(id, record)
    elseif how == 'refuse' then
      local starts = math.max(0, record.starts - 1)
      call('HINCRBY', s.stats, 'deliveries', starts - record.starts)
      dead_letter(s, c.keep, id, fields, starts, reason)
      forget(s, id, record)
    elseif how == 'dead' or (how == 'retry' and record.starts >= c.deliveries) then
      dead_letter(s, c.keep, id, fields, record.starts, reason)
      forget(s, id, record)
      outcome = how == 'retry' and 'X' or 'D'
    elseif not park(s, id, record.where) then
      -- Dropped by a full topic.
      forget(s, id, record)
    else
      call('ZREM', s.locks, id)
      call('HSET', s.messages, id, pack('', 0, record.starts, 'h', record.key))
      if how == 'retry' then
        call('ZADD', s.retry, whole(NOW + (wait ~= '' and tonumber(wait) or backoff(record.starts, tonumber(chance)))), id)
      elseif how == 'defer' then
        call('ZADD', s.deferred, NOW, id)
        release_key(s, record.key, id)
      else
        call('ZADD', s.retry, soon(id), id)
      end
      s.wakes = true
    end
    settled[#settled + 1] = outcome
  end
  remove(skipped, 'skipped')
end

local started, counted, texts = {}, {}, {}
seen = {}
groups(at, function(token, first, last)
  for n, record in ipairs(holding(first, last, token)) do
    local id = ARGV[first + n - 1]
    if record and record.starts >= c.deliveries then
      dead_letter(s, c.keep, id, fields_of(id, record.where), record.starts, 'the deliveries were used up')
      forget(s, id, record)
      started[#started + 1] = '0'
    elseif record then
      texts[record] = texts[record] or pack(record.token, record.till, record.starts + 1, record.where, record.key)
      counted[#counted + 1] = id
      counted[#counted + 1] = texts[record]
      started[#started + 1] = '1'
    else
      started[#started + 1] = '0'
    end
  end
end)
if #counted > 0 then
  chunks(counted, 2000, function(...) call('HSET', s.messages, ...) end)
  call('HINCRBY', s.stats, 'deliveries', #counted / 2)
end
if answered > 0 and c.read >= ADDED and call('ZCARD', s.order) == 0 then
  -- The last one of all: what it leaves must not lie there until the next call.
  trim(s, c)
end
used(s, c)
wake_own(s)
return { 'ok', table.concat(settled), table.concat(started), c.auto or '' }
