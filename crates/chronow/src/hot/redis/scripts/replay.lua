-- ARGV: shards, subscription, then for each message: id, number of names and values, these
local s, c = enter_sub()
if not s then
  return c
end
local group = positions()[s.group]
local at, put = 3, 0
while at <= #ARGV do
  local id, count = ARGV[at], tonumber(ARGV[at + 1])
  local fields = { unpack(ARGV, at + 2, at + 1 + count) }
  at = at + 2 + count
  local ahead = group and parse(id) and after(id, group.last) and call('XRANGE', K, id, id)[1]
  -- What is on its way to this subscription anyway is not put beside itself.
  if not ahead and call('HEXISTS', s.messages, id) == 0 then
    local key = field(fields, 'key') or ''
    hold(id, fields, order(id))
    call('HSET', s.messages, id, pack('', 0, 0, 'h', key))
    enqueue(s, id, key, order(id))
    put = put + 1
  end
end
if put > 0 then
  wake()
end
return { 'ok', put }
