-- KEYS: the key. ARGV: channel, the key as users know it, time to live
local version = redis.call('HMGET', KEYS[1], 'version', 'value')
if not version[2] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
-- No change, but watchers tell when the time is over.
redis.call('PUBLISH', ARGV[1], version[1] .. ':t@' .. ARGV[3] .. ':' .. ARGV[2])
return 1
