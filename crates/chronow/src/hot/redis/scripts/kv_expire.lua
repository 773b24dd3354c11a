-- KEYS: the key. ARGV: time to live
if redis.call('HEXISTS', KEYS[1], 'value') == 0 then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
