-- ARGV: shards, name, expected options ('' for none, '*' for whatever), options, visibility, deliveries, backoff, jitter, dlq, auto delete, paused,
-- filter, start
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local s = sub_of(ARGV[2])
local current = call('HGET', s.config, 'options') or ''
if ARGV[3] ~= '*' and ARGV[3] ~= current then
  return { 'changed', current }
end
if current == '' then
  local made = redis.pcall('XGROUP', 'CREATE', K, s.group, ARGV[13], 'MKSTREAM')
  if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP') then
    return made
  end
  call('SADD', SUBS, ARGV[2])
  local begin = ARGV[13] == '$' and (call('HGET', META, 'last') or '0-0') or ARGV[13]
  call('HSET', s.config, 'begin', begin, 'seen', whole(NOW))
  if string.sub(ARGV[2], 1, 2) == '__' then
    -- The library's own: whoever has the topic open has something to do for it.
    call('HSET', META, 'rev', whole(NOW_US))
  end
end
if current ~= ARGV[4] then
  call('HSET', s.config, 'options', ARGV[4], 'visibility', ARGV[5], 'deliveries', ARGV[6], 'backoff', ARGV[7], 'jitter', ARGV[8], 'dlq', ARGV[9],
    'auto', ARGV[10], 'paused', ARGV[11], 'filter', ARGV[12], 'version', whole(NOW_US), 'seen', whole(NOW))
  if ARGV[10] ~= '' then
    call('HSET', META, 'auto', '1')
  end
  wake()
end
return { 'ok' }
