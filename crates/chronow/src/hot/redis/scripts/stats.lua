-- ARGV: shards and generation, subscriptions. Answers about the shard: how many entries it ever had and has, held and scheduled messages, dropped
-- ones, the first numbers of held ones; and about each subscription a row.
local topic, reply = enter(ARGV[1])
if not topic then
  return reply
end
-- So many numbers are returned of what lies in the way, to count once what several subscriptions have.
local SOME = 128
local function numbers(key, from)
  local list, found = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, SOME), {}
  for i = 2, #list, 2 do
    found[#found + 1] = list[i]
  end
  return found
end

local length, rows = call('XLEN', K), {}
for i = 2, #ARGV do
  local s = sub_of(ARGV[i])
  local c = config_of(s)
  if c then
    purged(s, c, topic, true)
    local read = math.max(c.read, ADDED - length)
    local function card(command, ...)
      return s.emptied and 0 or call(command, ...)
    end
    local due = card('ZCOUNT', s.retry, '-inf', NOW)
    local oldest
    local function older(id)
      local ms = id and parse(id)
      if ms and (not oldest or ms < oldest) then
        oldest = ms
      end
    end
    if not s.emptied then
      older(call('ZRANGEBYSCORE', s.order, BESIDE, BESIDE, 'LIMIT', 0, 1)[1])
      older(call('ZRANGEBYSCORE', s.order, 0, '+inf', 'LIMIT', 0, 1)[1])
    end
    if read < ADDED then
      local first = call('XRANGE', K, '(' .. c.at, '+', 'COUNT', 1)[1]
      older(first and (field(first[2], 'id') or first[1]))
    end
    local counts = call('HMGET', s.stats, 'deliveries', 'acked')
    rows[#rows + 1] = {
      s.name, ADDED - read + card('ZCARD', s.blocked) + due, card('ZCARD', s.locks),
      card('ZCARD', s.retry) - due + call('ZLEXCOUNT', SCHED_IDS, '(' .. c.begin, '+'), card('ZCARD', s.deferred), call('ZCARD', s.dlq_order),
      counts[1] or '0', counts[2] or '0', oldest and whole(math.max(0, NOW - oldest)) or '', c.paused and '1' or '0', whole(read),
      card('ZCOUNT', s.order, 0, '+inf'), s.emptied and {} or numbers(s.order, 0),
    }
  end
end
return {
  'ok', whole(ADDED), length, call('ZCARD', HELD_ORDER), call('ZCARD', SCHED), call('HGET', META, 'dropped') or '0', numbers(HELD_ORDER, '-inf'),
  rows,
}
