-- ARGV: id
-- What is due already is somebody's, although nobody has pulled it yet.
local due = call('ZSCORE', SCHED, ARGV[1])
if not due or tonumber(due) <= NOW then
  return { 'ok', 0 }
end
call('ZREM', SCHED, ARGV[1])
call('HDEL', SCHED_BODY, ARGV[1])
return { 'ok', 1 }
