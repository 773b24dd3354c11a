-- ARGV: id
if call('ZREM', SCHED, ARGV[1]) == 0 then
  return { 'ok', 0 }
end
call('HDEL', SCHED_BODY, ARGV[1])
return { 'ok', 1 }
