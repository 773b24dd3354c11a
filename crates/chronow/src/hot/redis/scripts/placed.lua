-- ARGV: shards and generation, subscription, ids. Answers the number of the entry of each message that the subscription has ('' of others), and up to
-- which number no subscription will be given any more.
local s, c = enter_sub()
if not s then
  return c
end
trim(s, c, true)
local numbers = {}
for i = 3, #ARGV do
  local text = call('HGET', s.messages, ARGV[i])
  local record = text and unpack_record(text)
  numbers[#numbers + 1] = record and (call('ZSCORE', record.where == 'h' and HELD_ORDER or s.order, ARGV[i])) or ''
end
-- What everybody has read is out of the stream then, so that no later subscription begins with it.
cut()
local least = call('ZRANGE', ACK_FLOORS, 0, 0, 'WITHSCORES')[2]
return { 'ok', numbers, least or '0' }
