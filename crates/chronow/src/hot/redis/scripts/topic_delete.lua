-- ARGV: stamp, 'begin' to hide the topic, 'end' to remove what is left without subscriptions. Nothing of another stamp is touched. Answers 1 if that
-- was done.
local stamp = call('HGET', META, 'stamp')
if stamp ~= ARGV[1] then
  return { 'ok', 0 }
end
begin_draining()
if ARGV[2] == 'begin' then
  call('HSET', META, 'stamp', 'dying:' .. stamp)
  wake_each()
  return { 'ok', 1 }
elseif call('ZCARD', ACK_FLOORS) > 0 then
  return { 'ok', 0 }
end
wake_each()
call('UNLINK', K, META, ACK_FLOORS, IDLE, HELD, HELD_ORDER, HELD_REFS, SCHED, SCHED_BODY, SCHED_IDS, DEDUP, DEDUP_AT, WAITING)
return { 'ok', 1 }
