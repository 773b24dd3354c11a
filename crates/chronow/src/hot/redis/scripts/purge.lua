-- ARGV: shards and generation
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local count = owed()
begin_draining()
call('XTRIM', K, 'MAXLEN', 0)
call('UNLINK', HELD, HELD_ORDER, HELD_REFS, SCHED, SCHED_BODY, SCHED_IDS)
-- What the subscriptions had of it goes when they are next asked for something.
local turn = tonumber(string.match(topic.purged, '^%d+') or '0') + 1
call('HSET', META, 'purged', turn .. '|' .. whole(last_ms) .. '-' .. whole(last_seq) .. '|' .. whole(ADDED))
return { 'ok', count }
