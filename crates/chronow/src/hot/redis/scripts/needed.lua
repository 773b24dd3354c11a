-- ARGV: shards and generation, another subscription, then id and number of each message. Answers 1 for each that it has not settled, or has as a dead
-- letter, or may still get.
local s, c = enter_sub()
if not s then
  return c
end
trim(s, c, true)
local answers = {}
for i = 3, #ARGV, 2 do
  local id, number = ARGV[i], tonumber(ARGV[i + 1])
  local needed = number > c.read or call('HEXISTS', s.messages, id) == 1 or call('HEXISTS', s.dlq, id) == 1
  answers[#answers + 1] = needed and '1' or '0'
end
return { 'ok', table.concat(answers) }
