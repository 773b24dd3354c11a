-- ARGV: shards and generation, subscription, 'redrive' or 'purge', latest score ('' to begin with), most, ids (none: the oldest). Answers how many
-- were taken, the latest score, how many were looked at, and whether that is all that was asked for.
local s, c = enter_sub()
if not s then
  return c
end
local latest = ARGV[4] ~= '' and ARGV[4] or whole(NOW_US)
local ids = { unpack(ARGV, 6) }
if #ids == 0 then
  ids = call('ZRANGEBYSCORE', s.dlq_order, '-inf', latest, 'LIMIT', 0, ARGV[5])
end
local taken, seen, bytes = 0, 0, 0
for _, id in ipairs(ids) do
  if bytes > MAX_BYTES then
    break
  end
  seen = seen + 1
  local redrive = ARGV[3] == 'redrive'
  local body = redrive and call('HGET', s.dlq, id)
  if redrive and body and call('HEXISTS', s.messages, id) == 0 then
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
    put_beside(s, id, fields, key)
    s.wakes, bytes = true, bytes + #body
  end
  taken = taken + call('HDEL', s.dlq, id)
  call('ZREM', s.dlq_order, id)
end
wake_own(s)
return { 'ok', taken, latest, seen, seen == #ids and 1 or 0 }
