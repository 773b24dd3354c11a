-- ARGV: shards and generation, subscription, from (a score, with '(' to leave it out), limit. Answers ids and scores.
local s, c = enter_sub(true)
if not s then
  return c
end
return { 'ok', call('ZRANGEBYSCORE', s.dlq_order, ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4]) }
