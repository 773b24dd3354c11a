-- ARGV: shards
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
trim(true)
local groups, rows = positions(), {}
local upcoming = call('ZRANGE', SCHED, 0, -1)
for _, name in ipairs(call('SMEMBERS', SUBS)) do
  local s = sub_of(name)
  local group = groups[s.group]
  local c = config_of(s)
  if group and c then
    local due = call('ZCOUNT', s.retry, '-inf', NOW)
    local scheduled = 0
    for _, id in ipairs(upcoming) do
      scheduled = scheduled + (after(id, c.begin) and 1 or 0)
    end
    local oldest
    local function older(id)
      local ms = parse(id)
      if ms and (not oldest or ms < oldest) then
        oldest = ms
      end
    end
    for _, id in ipairs(call('HKEYS', s.messages)) do
      older(id)
    end
    local first = call('XRANGE', K, next_id(group.last), '+', 'COUNT', 1)[1]
    if first then
      older(field(first[2], 'id') or first[1])
    end
    local counts = call('HMGET', s.stats, 'deliveries', 'acked')
    rows[#rows + 1] = {
      name, unread(group) + call('ZCARD', s.blocked) + due, call('ZCARD', s.locks), call('ZCARD', s.retry) - due + scheduled,
      call('ZCARD', s.deferred), call('ZCARD', s.dlq_order), counts[1] or '0', counts[2] or '0',
      oldest and whole(math.max(0, NOW - oldest)) or '', c.paused and '1' or '0',
    }
  end
end
return { 'ok', owed(), call('HGET', META, 'dropped') or '0', rows }
