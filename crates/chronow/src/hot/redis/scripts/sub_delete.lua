-- ARGV: the stamp, or '*' for whatever, name, generation ('' for whatever), 'begin' to hide it, 'idle' the same if it is idle, 'end' to remove it in
-- steps, 'look' to learn only whether a lock of it lives here; with 'idle', 1 if one lives in another shard. Answers whether it was there, its generation, and 1 while there is more to remove.
local stamp = call('HGET', META, 'stamp')
if ARGV[1] ~= '*' and stamp ~= ARGV[1] then
  return { 'ok', 0, '', 0 }
end
local s = sub_of(ARGV[2])
local found = call('HMGET', s.config, 'gen', 'dying', 'options')
local gen = found[1] or ''
if not found[3] then
  call('ZREM', IDLE, s.name)
  return { 'ok', 0, '', 0 }
elseif ARGV[3] ~= '' and gen ~= ARGV[3] then
  return { 'ok', 0, '', 0 }
end
local at_work = call('ZCOUNT', s.locks, '(' .. whole(NOW), '+inf') > 0
if ARGV[4] == 'look' then
  return { 'ok', at_work and 1 or 0, gen, 0 }
elseif ARGV[4] == 'idle' then
  local limit, auto = call('ZSCORE', IDLE, s.name), tonumber(call('HGET', s.config, 'auto') or '')
  if not limit or tonumber(limit) > NOW then
    return { 'ok', 0, '', 0 }
  elseif auto and (at_work or ARGV[5] == '1') then
    -- A consumer is at work on a message: that is use.
    begin_draining()
    call('ZADD', IDLE, whole(NOW + auto), s.name)
    return { 'ok', 0, '', 0 }
  end
end
begin_draining()
call('ZREM', IDLE, s.name)
if not found[2] then
  call('HSET', s.config, 'dying', '1')
end
if ARGV[4] ~= 'end' then
  wake(s.name)
  return { 'ok', found[2] and 0 or 1, gen, 1 }
end
-- What is held for it.
local held = call('ZRANGEBYSCORE', s.order, BESIDE, BESIDE, 'LIMIT', 0, 500)
for _, id in ipairs(held) do
  unhold(id)
end
chunks(held, 500, function(...) call('ZREM', s.order, ...) end)
if #held == 500 then
  return { 'ok', 1, gen, 1 }
end
call('UNLINK', s.messages, s.order, s.locks, s.retry, s.blocked, s.deferred, s.keys, s.dlq, s.dlq_order, s.stats, s.config)
call('ZREM', ACK_FLOORS, s.name)
ADDED = tonumber(call('HGET', META, 'added') or '0')
cut()
return { 'ok', 1, gen, 0 }
