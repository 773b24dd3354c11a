-- ARGV: shards, subscription, from (a score, with '(' to leave it out), limit
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local s = sub_of(ARGV[2])
if call('EXISTS', s.config) == 0 then
  return { 'nosub' }
end
local out = {}
for _, id in ipairs(call('ZRANGEBYSCORE', s.dlq_order, ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])) do
  local body = call('HGET', s.dlq, id)
  if body then
    local letter = cmsgpack.unpack(body)
    out[#out + 1] = { id, letter[4], letter[1], letter[2], letter[3] }
  end
end
return { 'ok', out }
