-- ARGV: shards and generation, subscription, then id and token of each
local s, c = enter_sub()
if not s then
  return c
end
local till, held = whole(NOW + c.visibility), {}
for i = 3, #ARGV, 2 do
  local text = call('HGET', s.messages, ARGV[i])
  local record = text and unpack_record(text)
  if record and is_held(record, ARGV[i + 1]) and undropped(s, ARGV[i], record) then
    call('HSET', s.messages, ARGV[i], pack(record.token, till, record.starts, record.where, record.key))
    call('ZADD', s.locks, till, ARGV[i])
    held[#held + 1] = '1'
  else
    held[#held + 1] = '0'
  end
end
used(s, c, tonumber(till))
return { 'ok', table.concat(held), c.visibility, c.auto or '' }
