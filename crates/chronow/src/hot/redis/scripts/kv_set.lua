-- KEYS: the key. ARGV: channel, the key as users know it, condition, '1' for a value or '0' for a tombstone, bytes, content type, time to live ('' for ever)
local current = redis.call('HMGET', KEYS[1], 'version', 'value')
local condition = ARGV[3]
local again = string.match(condition, '^since (%d+)$')
if condition == 'absent' and current[2] then
  return false
elseif (condition == 'unknown' or again) and current[1] then
  return false
elseif condition ~= 'always' and condition ~= 'absent' and condition ~= 'unknown' and not again and (current[1] or '0') ~= condition then
  return false
end
-- Versions are no less than the time: so none comes twice, although nothing is remembered of a key that is gone.
local time = redis.call('TIME')
local version = tonumber(again) or math.max((tonumber(current[1]) or 0) + 1, time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', version))
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'value', ARGV[5], 'type', ARGV[6])
else
  redis.call('HSET', KEYS[1], 'type', ARGV[6])
  redis.call('HDEL', KEYS[1], 'value')
end
if ARGV[7] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
else
  redis.call('PERSIST', KEYS[1])
end
redis.call('PUBLISH', ARGV[1], string.format('%.0f', version) .. (ARGV[4] == '1' and ':0@' .. ARGV[7] or ':1') .. ':' .. ARGV[2])
return version
