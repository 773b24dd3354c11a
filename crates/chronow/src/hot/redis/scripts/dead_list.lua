-- ARGV: shards and generation, subscription, from (a score, with '(' to leave it out), limit. Answers the letters, fewer if they are large, and
-- whether more follow.
local s, c = enter_sub(true)
if not s then
  return c
end
local out, bytes, more = {}, 0, 0
for _, id in ipairs(call('ZRANGEBYSCORE', s.dlq_order, ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])) do
  local body = call('HGET', s.dlq, id)
  if body then
    if bytes > MAX_BYTES then
      more = 1
      break
    end
    local letter = cmsgpack.unpack(body)
    out[#out + 1] = { id, letter[4], letter[1], letter[2], letter[3] }
    bytes = bytes + #body
  end
end
return { 'ok', out, more }
