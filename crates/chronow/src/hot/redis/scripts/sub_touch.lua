-- ARGV: shards and generation, name, by how much a lock of another shard lasts. A consumer is at work on the subscription.
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local s = sub_of(ARGV[2])
local c = config_of(s)
if not c then
  return { 'nosub' }
end
begin_draining()
used(s, c, NOW + ARGV[3])
return { 'ok' }
