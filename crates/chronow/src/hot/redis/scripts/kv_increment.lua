-- KEYS: the key. ARGV: channel, the key as users know it, by how much, time to live ('' leaves it)
local had = redis.call('HMGET', KEYS[1], 'version', 'value')
-- The server adds with 64 bits and refuses the rest; Lua would round.
local sum = redis.pcall('HINCRBY', KEYS[1], 'value', ARGV[3])
if type(sum) == 'table' and sum.err then
  return { 'refused', sum.err }
end
if not had[2] then
  redis.call('HSET', KEYS[1], 'type', '')
  redis.call('PERSIST', KEYS[1])
end
local time = redis.call('TIME')
local version = math.max((tonumber(had[1]) or 0) + 1, time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', version))
if ARGV[4] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
local left = redis.call('PTTL', KEYS[1])
redis.call('PUBLISH', ARGV[1], string.format('%.0f', version) .. ':0@' .. (left >= 0 and string.format('%.0f', left) or '') .. ':' .. ARGV[2])
return { 'ok', redis.call('HGET', KEYS[1], 'value'), version }
