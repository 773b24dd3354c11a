-- ARGV: id
-- What is due already belongs to a consumer, although nobody has pulled it yet.
local due = call('ZSCORE', SCHED, ARGV[1])
if not due or tonumber(due) <= NOW then
  return { 'ok', 0 }
end
begin_draining()
local body = call('HGET', SCHED_BODY, ARGV[1])
local dedup = body and field(cmsgpack.unpack(body), 'dedup')
if dedup and call('HGET', DEDUP, dedup) == ARGV[1] then
  call('HDEL', DEDUP, dedup)
  call('ZREM', DEDUP_AT, dedup)
end
call('ZREM', SCHED, ARGV[1])
call('ZREM', SCHED_IDS, ARGV[1])
call('HDEL', SCHED_BODY, ARGV[1])
return { 'ok', 1 }
