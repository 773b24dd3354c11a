-- ARGV: shards and generation, 1 if no subscription has room to give back, then runs of messages with the same names: number of messages, 1 if each has a not before, a ttl and a dedup id ('' if not given) in
-- front of its values, else 0, number of names, these; then the values of each message.
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end

-- Which of them were accepted before, or come twice in this batch.
local runs, total, fresh, known = {}, 0, 0, {}
local at = 3
while at <= #ARGV do
  local run = { count = tonumber(ARGV[at]), names = {} }
  local special, width = ARGV[at + 1] == '1', tonumber(ARGV[at + 2])
  for i = 1, width do
    run.names[i] = ARGV[at + 2 + i]
  end
  run.first = at + 3 + width
  if special then
    run.messages = {}
    width = width + 3
    for i = 1, run.count do
      local first = run.first + (i - 1) * width
      local ttl = ARGV[first + 1] ~= '' and ARGV[first + 1] or topic.ttl
      local m = { first = first + 3, due = tonumber(ARGV[first]), ttl = tonumber(ttl), dedup = ARGV[first + 2] }
      if m.dedup ~= '' then
        if known[m.dedup] == nil then
          local accepted = call('ZSCORE', DEDUP_AT, m.dedup)
          known[m.dedup] = accepted and tonumber(accepted) + topic.dedup > NOW and call('HGET', DEDUP, m.dedup) or false
          m.id = known[m.dedup] or nil
          known[m.dedup] = known[m.dedup] or m
        elseif type(known[m.dedup]) == 'string' then
          m.id = known[m.dedup]
        else
          m.first_one = known[m.dedup]
        end
      end
      if not m.id and not m.first_one then
        fresh = fresh + 1
      end
      run.messages[i] = m
    end
  else
    fresh = fresh + run.count
  end
  total = total + run.count
  at = run.first + run.count * width
  runs[#runs + 1] = run
end

-- Drops the oldest that are not scheduled. A subscription that had one finds out when it comes upon it.
local function drop_oldest(count)
  call('XTRIM', K, 'MAXLEN', whole(needed_entries()))
  for _ = 1, count do
    local held = call('ZRANGE', HELD_ORDER, 0, 0, 'WITHSCORES')
    local length = call('XLEN', K)
    local number = ADDED - length + 1
    local id
    if held[1] and (length == 0 or tonumber(held[2]) < number) then
      id = held[1]
    else
      local entry = call('XRANGE', K, '-', '+', 'COUNT', 1)[1]
      id = field(entry[2], 'id') or entry[1]
      call('XTRIM', K, 'MAXLEN', length - 1)
    end
    call('HDEL', HELD, id)
    call('ZREM', HELD_ORDER, id)
    call('HDEL', HELD_REFS, id)
  end
  call('HINCRBY', META, 'dropped', count)
end

-- Room for them: what is owed counts, what everybody has settled goes first.
if fresh > 0 and call('XLEN', K) + call('ZCARD', HELD_ORDER) + call('ZCARD', SCHED) + fresh > topic.max then
  -- A full server refuses this one; from here on it would refuse nothing more.
  call('HSET', META, 'added', whole(ADDED))
  cut()
  local over = owed() + fresh - topic.max
  if over > 0 then
    local full = { 'full', over + topic.max - fresh }
    if fresh > topic.max then
      return full
    elseif call('ZCARD', ACK_FLOORS) == 0 then
      -- Owed to nobody: the oldest go, and nobody misses them.
      call('XTRIM', K, 'MAXLEN', math.max(0, call('XLEN', K) - over))
    elseif ARGV[2] ~= '1' then
      local least = call('ZRANGE', ACK_FLOORS, 0, 0, 'WITHSCORES')[2]
      return { 'crowded', unpack(call('ZRANGEBYSCORE', ACK_FLOORS, least, least, 'LIMIT', 0, 8)) }
    elseif topic.overflow ~= 'drop_oldest' or over > owed() - call('ZCARD', SCHED) then
      return full
    else
      drop_oldest(over)
    end
  end
end

-- New ids follow each other; they are returned one by one only if some are older.
local begin, seq, ids, duplicates = nil, 0, total > fresh and {} or nil, {}
if fresh > 0 then
  begin, seq = mint_many(fresh)
end
local first_seq, entries = seq, 0

local function add_plain(run)
  local fields, width, at = {}, #run.names, run.first
  for i, name in ipairs(run.names) do
    fields[2 * i - 1] = name
  end
  if topic.ttl then
    fields[2 * width + 1] = 'until'
    fields[2 * width + 2] = whole(NOW + topic.ttl)
  end
  for n = 1, run.count do
    for i = 1, width do
      fields[2 * i] = ARGV[at]
      at = at + 1
    end
    local id = begin .. whole(seq)
    seq, entries = seq + 1, entries + 1
    call('XADD', K, id, unpack(fields))
    if ids then
      ids[#ids + 1] = id
      duplicates[#duplicates + 1] = '0'
    end
  end
end

local function add(run, m)
  duplicates[#duplicates + 1] = (m.id or m.first_one) and '1' or '0'
  if m.first_one then
    m.id = m.first_one.id
  elseif not m.id then
    m.id = begin .. whole(seq)
    seq = seq + 1
    local fields = {}
    for i, name in ipairs(run.names) do
      fields[2 * i - 1], fields[2 * i] = name, ARGV[m.first + i - 1]
    end
    local later = m.due and m.due > NOW
    if m.ttl then
      fields[#fields + 1] = 'until'
      fields[#fields + 1] = whole((later and m.due or NOW) + m.ttl)
    end
    if later then
      if m.dedup ~= '' then
        -- The call that takes it back frees its id.
        fields[#fields + 1] = 'dedup'
        fields[#fields + 1] = m.dedup
      end
      call('ZADD', SCHED, whole(m.due), m.id)
      call('ZADD', SCHED_IDS, 0, m.id)
      call('HSET', SCHED_BODY, m.id, cmsgpack.pack(fields))
    else
      call('XADD', K, m.id, unpack(fields))
      entries = entries + 1
    end
    if m.dedup ~= '' and topic.dedup > 0 then
      call('HSET', DEDUP, m.dedup, m.id)
      call('ZADD', DEDUP_AT, NOW, m.dedup)
    end
  end
  if ids then
    ids[#ids + 1] = m.id
  end
end

for _, run in ipairs(runs) do
  if run.messages then
    for _, m in ipairs(run.messages) do
      add(run, m)
    end
  else
    add_plain(run)
  end
end
if fresh > 0 then
  keep_minted(entries)
  wake_each()
end
if call('ZCARD', DEDUP_AT) > 0 then
  local old = call('ZRANGEBYSCORE', DEDUP_AT, '-inf', NOW - topic.dedup, 'LIMIT', 0, 100 + 2 * total)
  chunks(old, 1000, function(...)
    call('ZREM', DEDUP_AT, ...)
    call('HDEL', DEDUP, ...)
  end)
end
if ids then
  return { 'ok', ids, table.concat(duplicates), REVISION }
end
return { 'ok', begin or '', first_seq, REVISION }
