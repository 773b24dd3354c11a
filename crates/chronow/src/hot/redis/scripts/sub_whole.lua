-- ARGV: shards and generation, name, generation, revision. All shards have this revision.
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local s = sub_of(ARGV[2])
local now = call('HMGET', s.config, 'gen', 'rev')
if now[1] == ARGV[3] and now[2] == ARGV[4] then
  begin_draining()
  call('HSET', s.config, 'whole', ARGV[4])
end
return { 'ok' }
