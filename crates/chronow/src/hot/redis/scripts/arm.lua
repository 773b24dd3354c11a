-- ARGV: shards, subscription, for how long somebody waits
local s, c = enter_sub()
if not s then
  return c
end
call('SET', WAITING, '1', 'PX', ARGV[3])
if c.paused then
  return { 'ok', -1 }
end
local group = positions()[s.group]
if group and call('XLEN', K) > 0 and call('XREVRANGE', K, '+', next_id(group.last), 'COUNT', 1)[1] then
  return { 'ok', 0 }
end
return { 'ok', next_due(s) }
