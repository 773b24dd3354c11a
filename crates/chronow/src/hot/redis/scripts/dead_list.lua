-- ARGV: shards, subscription, from (a score, with '(' to leave it out), limit
local s, c = enter_sub()
if not s then
  return c
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
