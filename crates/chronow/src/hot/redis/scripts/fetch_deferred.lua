-- ARGV: shards and generation, subscription, token, ids. Answers until when they are locked, the messages, and how many of the ids were looked at.
local s, c = enter_sub()
if not s then
  return c
end
local till, out, bytes, seen = whole(NOW + c.visibility), {}, 0, 0
for i = 4, #ARGV do
  if bytes > MAX_BYTES then
    break
  end
  seen = seen + 1
  local id = ARGV[i]
  if call('ZREM', s.deferred, id) == 1 then
    local text = call('HGET', s.messages, id)
    local record = text and unpack_record(text)
    local fields = record and fields_of(id, record.where)
    if not fields then
      forget(s, id, record or { where = '', key = '' })
    else
      -- With its deliveries used up it cannot be started, but still be looked at and settled.
      out[#out + 1] = { id, record.starts, fields }
      bytes = bytes + size_of(fields)
      call('HSET', s.messages, id, pack(ARGV[3], till, record.starts, record.where, record.key))
      call('ZADD', s.locks, till, id)
    end
  end
end
used(s, c, tonumber(till))
return { 'ok', till, out, seen }
