-- ARGV: shards and generation, name. Counts more of what a subscription skips that began in the middle. Answers 1 while there is more.
local s, c = enter_sub()
if not s then
  return c
end
local from = call('HGET', s.config, 'counting')
if not from then
  return { 'ok', 0 }
end
local page = call('XRANGE', K, '(' .. from, c.begin, 'COUNT', 200)
if #page > 0 then
  call('HINCRBY', s.config, 'read', #page)
end
if #page == 200 then
  call('HSET', s.config, 'counting', page[200][1])
  return { 'ok', 1 }
end
call('HDEL', s.config, 'counting')
return { 'ok', 0 }
