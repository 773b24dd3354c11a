-- ARGV: shards and generation, subscription, ids
local s, c = enter_sub(true)
if not s then
  return c
end
local out = {}
for i = 3, #ARGV do
  local body = call('HGET', s.dlq, ARGV[i])
  if body then
    local letter = cmsgpack.unpack(body)
    out[#out + 1] = { ARGV[i], letter[4], letter[1], letter[2], letter[3] }
  end
end
return { 'ok', out }
