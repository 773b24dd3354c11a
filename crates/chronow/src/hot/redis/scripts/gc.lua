-- ARGV: shards and generation, subscription. Gives back what room the subscription can; answers whether it gave some, and whether there is more.
local s, c = enter_sub()
if not s then
  return c
end
local came = trim(s, c, true)
return { 'ok', came and 1 or 0, came and ack_floor_of(s, c) < c.read and 1 or 0 }
