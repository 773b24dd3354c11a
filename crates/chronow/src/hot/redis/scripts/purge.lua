-- ARGV: shards
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
trim(true)
local count = owed()
for _, name in ipairs(call('SMEMBERS', SUBS)) do
  local s = sub_of(name)
  call('UNLINK', s.messages, s.locks, s.retry, s.blocked, s.deferred, s.keys)
  call('XGROUP', 'SETID', K, s.group, '$')
end
call('XTRIM', K, 'MAXLEN', 0)
call('UNLINK', HELD, HELD_ORDER, HELD_REFS, SCHED, SCHED_BODY)
return { 'ok', count }
