-- ARGV: expected options ('' for none, '*' for whatever), options, shards, max, overflow, ttl, dedup window
local current = call('HGET', META, 'options') or ''
if ARGV[1] ~= '*' and ARGV[1] ~= current then
  return { 'changed', current }
end
call('HSET', META, 'options', ARGV[2], 'shards', ARGV[3], 'max', ARGV[4], 'overflow', ARGV[5], 'ttl', ARGV[6], 'dedup', ARGV[7], 'rev', whole(NOW_US))
return { 'ok' }
