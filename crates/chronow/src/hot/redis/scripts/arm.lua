-- ARGV: shards and generation, subscription, for how long a consumer waits, the channel it listens to, its number, what an earlier call put ('' if none).
-- Answers when something is due and what was put.
local s, c = enter_sub()
if not s then
  return c
end
if ARGV[6] ~= '' then
  call('ZREM', WAITING, ARGV[6])
end
-- Of those whose time is over, some go with everybody who comes.
for _, old in ipairs(call('ZRANGEBYLEX', WAITING, '[' .. s.name .. '|', '(' .. s.name .. '|' .. whole(NOW), 'LIMIT', 0, 3)) do
  call('ZREM', WAITING, old)
end
if not c.paused and c.read < ADDED then
  return { 'ok', 0, '' }
end
local due = c.paused and -1 or next_due(s)
if due == 0 then
  return { 'ok', 0, '' }
end
local own = s.name .. '|' .. whole(NOW + ARGV[3]) .. '|' .. ARGV[4] .. '|' .. ARGV[5]
call('ZADD', WAITING, 0, own)
call('PEXPIRE', WAITING, 120000)
return { 'ok', due, own }
