-- ARGV: shards, name
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local options = call('HGET', sub_of(ARGV[2]).config, 'options')
if not options then
  return { 'nosub' }
end
return { 'ok', options }
