-- ARGV: shards and generation, name. Answers the options, generation, revision, the revision that all shards have, and when it was made.
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local found = call('HMGET', sub_of(ARGV[2]).config, 'options', 'gen', 'rev', 'whole', 'made', 'dying')
if not found[1] then
  return { 'nosub' }
end
return { 'ok', found[1], found[2], found[3], found[4] or '', found[5], found[6] or '' }
