-- ARGV: shards, then for each message: not before, ttl, dedup id (each '' if not given), number of names and values, these
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end

-- Which of them were accepted before, or come twice in this batch.
local messages, known, fresh = {}, {}, 0
local at = 2
while at <= #ARGV do
  local m = { due = tonumber(ARGV[at]), ttl = tonumber(ARGV[at + 1] ~= '' and ARGV[at + 1] or topic.ttl), dedup = ARGV[at + 2] }
  local count = tonumber(ARGV[at + 3])
  m.first, m.last = at + 4, at + 3 + count
  at = at + 4 + count
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
  messages[#messages + 1] = m
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
        record.where = ''
        forget(s, id, record)
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

local ids, duplicates = {}, {}
for i, m in ipairs(messages) do
  duplicates[i] = (m.id or m.first_one) and '1' or '0'
  if not m.id then
    if m.first_one then
      m.id = m.first_one.id
    else
      m.id = mint()
      local fields = { unpack(ARGV, m.first, m.last) }
      local later = m.due and m.due > NOW
      if m.ttl then
        fields[#fields + 1] = 'until'
        fields[#fields + 1] = whole((later and m.due or NOW) + m.ttl)
      end
      if later then
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
  end
  ids[i] = m.id
end
if fresh > 0 then
  keep_minted()
  wake()
end
if call('ZCARD', DEDUP_AT) > 0 then
  local old = call('ZRANGEBYSCORE', DEDUP_AT, '-inf', NOW - topic.dedup, 'LIMIT', 0, 100 + 2 * #messages)
  chunks(old, 1000, function(...)
    call('ZREM', DEDUP_AT, ...)
    call('HDEL', DEDUP, ...)
  end)
end
return { 'ok', ids, table.concat(duplicates) }
