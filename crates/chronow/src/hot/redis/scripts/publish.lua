-- ARGV: shards, then runs of messages with the same names: number of messages, 1 if each has a not before, a ttl and a dedup id ('' if not given) in
-- front of its values, else 0, number of names, these; then the values of each message.
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end

-- Which of them were accepted before, or come twice in this batch.
local runs, total, fresh, known = {}, 0, 0, {}
local at = 2
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

-- Room for them: what is owed counts, what everybody has settled goes first.
local function drop_oldest(count)
  local dropped = 0
  while dropped < count do
    local held = call('ZRANGE', HELD_ORDER, 0, 0, 'WITHSCORES')
    local first = call('XRANGE', K, '-', '+', 'COUNT', 1)[1]
    if not held[1] and not first then
      break
    end
    local id
    if first and (not held[1] or tonumber(string.format('%.4f', order(first[1]))) <= tonumber(held[2])) then
      id = field(first[2], 'id') or first[1]
      call('XTRIM', K, 'MINID', next_id(first[1]))
    else
      id = held[1]
    end
    call('HDEL', HELD, id)
    call('ZREM', HELD_ORDER, id)
    call('HDEL', HELD_REFS, id)
    for _, name in ipairs(call('SMEMBERS', SUBS)) do
      local s = sub_of(name)
      local text = call('HGET', s.messages, id)
      if text then
        local record = unpack_record(text)
        if record.key ~= '' then
          call('ZREM', s.blocked, blocked_prefix(record.key) .. string.format('%026.8f', order(id)) .. ':' .. id)
        end
        -- What it was held for is gone already.
        forget(s, id, { where = '', key = record.key })
      end
    end
    dropped = dropped + 1
  end
  call('HINCRBY', META, 'dropped', dropped)
  return dropped == count
end

if fresh > 0 and call('XLEN', K) + call('ZCARD', HELD_ORDER) + call('ZCARD', SCHED) + fresh > topic.max then
  trim(true)
  local over = owed() + fresh - topic.max
  if over > 0 then
    if fresh > topic.max then
      return { 'full', over + topic.max - fresh }
    elseif call('SCARD', SUBS) == 0 then
      -- Owed to nobody: the oldest go, and nobody misses them.
      call('XTRIM', K, 'MAXLEN', math.max(0, call('XLEN', K) - over))
    elseif topic.overflow ~= 'drop_oldest' or not drop_oldest(over) then
      return { 'full', over + topic.max - fresh }
    end
  end
end

-- New ids follow each other; they are told one by one only if some are older.
local begin, seq, ids, duplicates = nil, 0, total > fresh and {} or nil, {}
if fresh > 0 then
  begin, seq = mint_many(fresh)
end
local first_seq = seq

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
    local id = begin .. seq
    seq = seq + 1
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
    m.id = begin .. seq
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
        -- Whoever takes it back frees its id.
        fields[#fields + 1] = 'dedup'
        fields[#fields + 1] = m.dedup
      end
      call('ZADD', SCHED, whole(m.due), m.id)
      call('HSET', SCHED_BODY, m.id, cmsgpack.pack(fields))
    else
      call('XADD', K, m.id, unpack(fields))
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
  keep_minted()
  wake()
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
