-- ARGV: shards and generation, subscription, then for each message: id, number of names and values, these
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
-- This takes memory, so a full server may refuse it.
call('HSET', META, 'added', whole(ADDED))
local s, c = enter_sub()
if not s then
  return c
end
local at, put = 3, 0
while at <= #ARGV do
  local id, count = ARGV[at], tonumber(ARGV[at + 1])
  local fields = { unpack(ARGV, at + 2, at + 1 + count) }
  at = at + 2 + count
  local ahead = parse(id) and after(id, c.at) and call('XRANGE', K, id, id)[1]
  -- What is on its way to this subscription anyway is not put beside itself.
  if not ahead and call('HEXISTS', s.messages, id) == 0 then
    put_beside(s, id, fields, field(fields, 'key') or '')
    s.wakes = true
    put = put + 1
  end
end
wake_own(s)
return { 'ok', put }
