-- ARGV: shards
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
return { 'ok', call('SMEMBERS', SUBS) }
