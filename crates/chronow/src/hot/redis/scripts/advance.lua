-- ARGV: shards, subscription, number of acknowledged, id and token of each, number settled otherwise, for each id, token, how (retry, dead, defer,
-- release, skip), wait ('' for the backoff), chance of the jitter, reason; then id and token of each to start
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local s = sub_of(ARGV[2])
local c = config_of(s)
if not c then
  return { 'nosub' }
end

-- Locks of one call are looked up together, and written together.
local function holding(first, last, step)
  local ids, found = {}, {}
  for i = first, last, step do
    ids[#ids + 1] = ARGV[i]
  end
  for from = 1, #ids, 1000 do
    for _, text in ipairs(call('HMGET', s.messages, unpack(ids, from, math.min(from + 999, #ids)))) do
      found[#found + 1] = text
    end
  end
  local seen, records = {}, {}
  for n, id in ipairs(ids) do
    local record = found[n] and not seen[id] and unpack_record(found[n])
    records[n] = record and record.token == ARGV[first + (n - 1) * step + 1] and tonumber(record.till) > NOW and record or false
    seen[id] = seen[id] or records[n] ~= false
  end
  return ids, records
end

local function settle_all(ids, records, counter)
  local gone, outcome = {}, {}
  for n, id in ipairs(ids) do
    outcome[n] = records[n] and 'D' or 'L'
    if records[n] then
      gone[#gone + 1] = id
    end
  end
  if #gone == 0 then
    return outcome
  end
  chunks(gone, 1000, function(...)
    call('HDEL', s.messages, ...)
    call('ZREM', s.locks, ...)
  end)
  for n, id in ipairs(ids) do
    local record = records[n]
    if record and record.where == 'h' then
      unhold(id)
    end
    if record and record.key ~= '' then
      release_key(s, record.key, id)
    end
  end
  local total = call('HINCRBY', s.stats, counter, #gone)
  if math.floor(total / 256) ~= math.floor((total - #gone) / 256) then
    trim(false)
  end
  return outcome
end

local function backoff(starts, chance)
  local waits = {}
  for text in string.gmatch(c.backoff, '%d+') do
    waits[#waits + 1] = tonumber(text)
  end
  local base = waits[math.min(math.max(starts, 1), #waits)] or 0
  return math.floor(base * (1 + chance * c.jitter / 100))
end

local settled = {}
local acks = tonumber(ARGV[3])
local at = 4 + 2 * acks
if acks > 0 then
  local ids, records = holding(4, at - 1, 2)
  settled = settle_all(ids, records, 'acked')
end

local others = tonumber(ARGV[at])
local first = at + 1
at = first + 6 * others
if others > 0 then
  local ids, records = holding(first, at - 1, 6)
  local skipped, skipped_records = {}, {}
  for n, id in ipairs(ids) do
    local record = records[n]
    local how, wait, chance, reason = ARGV[first + 6 * n - 4], ARGV[first + 6 * n - 3], ARGV[first + 6 * n - 2], ARGV[first + 6 * n - 1]
    local outcome = 'D'
    if not record then
      outcome = 'L'
    elseif how == 'skip' then
      skipped[#skipped + 1] = id
      skipped_records[#skipped_records + 1] = record
    elseif how == 'dead' or (how == 'retry' and record.starts >= c.deliveries) then
      bury(s, c.keep, id, fields_of(id, record.where), record.starts, reason)
      forget(s, id, record)
      outcome = how == 'dead' and 'D' or 'X'
    elseif not park(id, record.where) then
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
      wake()
    end
    settled[#settled + 1] = outcome
  end
  if #skipped > 0 then
    settle_all(skipped, skipped_records, 'skipped')
  end
end

local started = {}
if at <= #ARGV then
  local ids, records = holding(at, #ARGV, 2)
  local counted = {}
  for n, id in ipairs(ids) do
    local record = records[n]
    started[n] = '0'
    if record and record.starts >= c.deliveries then
      bury(s, c.keep, id, fields_of(id, record.where), record.starts, 'the deliveries were used up')
      forget(s, id, record)
    elseif record then
      started[n] = '1'
      counted[#counted + 1] = id
      counted[#counted + 1] = pack(record.token, record.till, record.starts + 1, record.where, record.key)
    end
  end
  if #counted > 0 then
    chunks(counted, 2000, function(...) call('HSET', s.messages, ...) end)
    call('HINCRBY', s.stats, 'deliveries', #counted / 2)
  end
end
return { 'ok', table.concat(settled), table.concat(started) }
