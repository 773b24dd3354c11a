-- ARGV: shards, subscription, 'redrive' or 'purge', latest score ('' to begin with), most, ids (none: the oldest)
local s, c = enter_sub()
if not s then
  return c
end
local latest = ARGV[4] ~= '' and ARGV[4] or whole(NOW_US)
local ids = { unpack(ARGV, 6) }
if #ids == 0 then
  ids = call('ZRANGEBYSCORE', s.dlq_order, '-inf', latest, 'LIMIT', 0, ARGV[5])
end
local taken = 0
for _, id in ipairs(ids) do
  local body = call('HGET', s.dlq, id)
  if body then
    if ARGV[3] == 'redrive' and call('HEXISTS', s.messages, id) == 0 then
      local fields, key = {}, ''
      local old = cmsgpack.unpack(body)[1]
      for i = 1, #old, 2 do
        -- A new life: what made it expire does not count any more.
        if old[i] ~= 'until' then
          fields[#fields + 1] = old[i]
          fields[#fields + 1] = old[i + 1]
        end
        if old[i] == 'key' then
          key = old[i + 1]
        end
      end
      hold(id, fields, order(id))
      call('HSET', s.messages, id, pack('', 0, 0, 'h', key))
      enqueue(s, id, key, order(id))
    end
    call('HDEL', s.dlq, id)
    call('ZREM', s.dlq_order, id)
    taken = taken + 1
  end
end
if taken > 0 and ARGV[3] == 'redrive' then
  wake()
end
return { 'ok', taken, latest, #ids }
