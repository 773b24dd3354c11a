-- ARGV: expected options ('' for none, '*' for whatever), options, max, overflow, ttl, dedup window, stamp for a new topic or of this one, revision
-- ('' in the first shard, which counts them). Answers stamp and revision.
local now = call('HMGET', META, 'options', 'stamp', 'rev', 'shards')
local current, stamp, rev = now[1] or '', now[2], tonumber(now[3] or '0')
if now[4] and not stamp then
  return { 'old' }
elseif ARGV[8] == '' then
  if ARGV[1] ~= '*' and ARGV[1] ~= current then
    return { 'changed' }
  elseif stamp and string.find(stamp, '^dying:') then
    return { 'changed' }
  end
  stamp, rev = stamp or ARGV[7], rev + 1
else
  if stamp and stamp ~= ARGV[7] then
    return { 'stale', stamp }
  elseif stamp and rev >= tonumber(ARGV[8]) then
    return { 'ok', stamp, rev }
  end
  stamp, rev = ARGV[7], tonumber(ARGV[8])
end
if current ~= '' then
  begin_draining()
end
call('HSET', META, 'options', ARGV[2], 'max', ARGV[3], 'overflow', ARGV[4], 'ttl', ARGV[5], 'dedup', ARGV[6], 'stamp', stamp, 'rev', rev)
call('HSETNX', META, 'added', '0')
return { 'ok', stamp, rev }
