-- KEYS: the key. ARGV: channel, the key as users know it, by how much, time to live ('' leaves it)
local had = redis.call('HEXISTS', KEYS[1], 'value') == 1
-- The server adds with 64 bits and refuses the rest; Lua would round.
local sum = redis.pcall('HINCRBY', KEYS[1], 'value', ARGV[3])
if type(sum) == 'table' and sum.err then
  return { 'refused', sum.err }
end
if not had then
  redis.call('HSET', KEYS[1], 'type', '')
  redis.call('PERSIST', KEYS[1])
end
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[4] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
redis.call('PUBLISH', ARGV[1], string.format('%.0f', version) .. ':0:' .. ARGV[2])
return { 'ok', redis.call('HGET', KEYS[1], 'value'), version }
