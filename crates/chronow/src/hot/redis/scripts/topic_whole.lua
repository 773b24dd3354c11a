-- ARGV: stamp, revision. All shards have this revision.
local now = call('HMGET', META, 'stamp', 'rev')
if now[1] == ARGV[1] and now[2] == ARGV[2] then
  begin_draining()
  call('HSET', META, 'whole', ARGV[2])
end
return { 'ok' }
