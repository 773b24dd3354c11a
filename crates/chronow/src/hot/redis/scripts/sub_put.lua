-- ARGV: shards and generation, name, expected options ('' for none, '*' for whatever), options, visibility, deliveries, backoff, jitter, dlq, auto
-- delete, paused, filter, start, then for a shard other than the first: generation, revision, when it was made, and 1 if it is made at this
-- moment (else empty); then what the filter asks of headers.
-- Answers generation, revision, when it was made, and 1 if what it skips has yet to be counted.
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
local s = sub_of(ARGV[2])
local now = call('HMGET', s.config, 'options', 'gen', 'rev', 'made', 'dying', 'counting')
local current, gen, rev, made = now[1] or '', tonumber(now[2] or '0'), tonumber(now[3] or '0'), now[4]
local first = ARGV[14] == ''
if first then
  if now[5] then
    return { 'dying' }
  elseif ARGV[3] ~= '*' and ARGV[3] ~= current then
    return { 'changed' }
  end
else
  local wanted = tonumber(ARGV[14])
  if gen > wanted then
    return { 'changed' }
  elseif current ~= '' and (gen < wanted or now[5]) then
    -- The first shard has let this one go.
    return { 'dying' }
  elseif current ~= '' and rev >= tonumber(ARGV[15]) then
    return { 'ok', gen, rev, made, now[6] and 1 or 0 }
  end
end
if current == '' then
  -- What may be left of one that was removed is none of this one.
  call('HSET', META, 'added', whole(ADDED))
  call('UNLINK', s.messages, s.order, s.locks, s.retry, s.blocked, s.deferred, s.keys, s.dlq, s.dlq_order, s.stats)
  gen, made = first and call('HINCRBY', META, 'gens', 1) or ARGV[14], first and whole(NOW) or ARGV[16]
  local last, length = whole(last_ms) .. '-' .. whole(last_seq), call('XLEN', K)
  local at, read = ARGV[13], ADDED
  if at == '$' and (first or ARGV[17] == '1') then
    at = last
  elseif at == '$' then
    -- As of when it was made, by the first shard's clock; this one's may be behind.
    at = made .. '-999999999'
    at = after(last, at) and at or last
  end
  if after(last, at) then
    -- How many are to be skipped is counted step by step.
    read = ADDED - length
    if length > 0 and not after(call('XRANGE', K, '-', '+', 'COUNT', 1)[1][1], at) then
      call('HSET', s.config, 'counting', '0-0')
    end
  elseif after(at, last) then
    call('HSET', s.config, 'ahead', '1')
  end
  call('HSET', s.config, 'begin', at, 'at', at, 'read', whole(read), 'purged', topic.purged)
  call('ZADD', ACK_FLOORS, whole(read), s.name)
  if string.sub(ARGV[2], 1, 2) == '__' then
    -- The library's own: each client that has the topic open has something to do for it.
    call('HSET', META, 'news', whole(NOW_US))
  end
else
  -- Such as to go on again, on a server that is full.
  begin_draining()
end
rev = first and rev + 1 or ARGV[15]
call('HSET', s.config, 'options', ARGV[4], 'visibility', ARGV[5], 'deliveries', ARGV[6], 'backoff', ARGV[7], 'jitter', ARGV[8], 'dlq', ARGV[9],
  'auto', ARGV[10], 'paused', ARGV[11], 'filter', ARGV[12], 'sieve', ARGV[18], 'version', made .. '.' .. gen .. '.' .. rev, 'gen', gen, 'rev', rev, 'made', made)
if first and ARGV[10] ~= '' then
  call('HSET', META, 'auto', '1')
  call('ZADD', IDLE, whole(NOW + ARGV[10]), s.name)
else
  call('ZREM', IDLE, s.name)
end
wake(s.name)
return { 'ok', gen, rev, made, call('HEXISTS', s.config, 'counting') }
