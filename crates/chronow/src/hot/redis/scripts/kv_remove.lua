-- KEYS: the key. ARGV: channel, the key as users know it
local current = redis.call('HMGET', KEYS[1], 'version', 'value')
redis.call('DEL', KEYS[1])
if not current[2] then
  return 0
end
redis.call('PUBLISH', ARGV[1], string.format('%.0f', current[1] + 1) .. ':1:' .. ARGV[2])
return 1
