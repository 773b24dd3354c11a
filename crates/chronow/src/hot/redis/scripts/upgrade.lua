-- From the shape of earlier versions: subscriptions were consumer groups, places were times. ARGV: all subscriptions. Answers 1 if that was done or is
-- not needed, 0 if there are other subscriptions by now.
local m = call('HMGET', META, 'stamp', 'shards', 'last')
if m[1] or not m[2] then
  return { 'ok', 1 }
end
local SUBS = K .. ':subs'
if call('SCARD', SUBS) ~= #ARGV then
  return { 'ok', 0 }
end
for _, name in ipairs(ARGV) do
  if call('SISMEMBER', SUBS, name) == 0 then
    return { 'ok', 0 }
  end
end
begin_draining()
-- What has a number is asked for by its entry, or its own id if it was scheduled.
local wanted, groups, subs = {}, {}, {}
local there = call('TYPE', K).ok == 'stream'
for _, group in ipairs(there and call('XINFO', 'GROUPS', K) or {}) do
  groups[field(group, 'name')] = field(group, 'last-delivered-id')
end
for _, name in ipairs(ARGV) do
  local s = sub_of(name)
  s.at, s.ahead, s.records = groups['sub:' .. name] or '0-0', 0, call('HGETALL', s.messages)
  subs[#subs + 1] = s
end
local from, number = '-', 0
local numbers = {}
for _, s in ipairs(subs) do
  for i = 1, #s.records, 2 do
    local record = unpack_record(s.records[i + 1])
    if record.where ~= 'h' then
      wanted[entry_of(s.records[i], record.where)] = true
    end
  end
end
local held = {}
for _, id in ipairs(call('ZRANGE', HELD_ORDER, 0, -1)) do
  held[id] = 0
end
while true do
  local page = call('XRANGE', K, from, '+', 'COUNT', 200)
  for _, entry in ipairs(page) do
    number = number + 1
    local own = field(entry[2], 'id')
    if wanted[entry[1]] then
      numbers[entry[1]] = number
    end
    if held[own or entry[1]] then
      held[own or entry[1]] = number
    end
    for _, s in ipairs(subs) do
      if after(entry[1], s.at) then
        s.ahead = s.ahead + 1
      end
    end
  end
  if #page < 200 then
    break
  end
  from = '(' .. page[200][1]
end
for id, at in pairs(held) do
  call('ZADD', HELD_ORDER, at, id)
end
for _, s in ipairs(subs) do
  for i = 1, #s.records, 2 do
    local id, record = s.records[i], unpack_record(s.records[i + 1])
    call('ZADD', s.order, record.where == 'h' and BESIDE or numbers[entry_of(id, record.where)] or BESIDE, id)
  end
  local c = call('HMGET', s.config, 'auto', 'begin')
  call('HSET', s.config, 'at', s.at, 'read', whole(number - s.ahead), 'purged', '', 'begin', c[2] or '0-0', 'gen', 0, 'rev', 1, 'made', whole(NOW))
  call('HDEL', s.config, 'seen')
  call('ZADD', ACK_FLOORS, 0, s.name)
  if c[1] and c[1] ~= '' and not string.find(K, '#%d+}$') then
    call('ZADD', IDLE, whole(NOW + c[1]), s.name)
  end
  if there then
    redis.pcall('XGROUP', 'DESTROY', K, 'sub:' .. s.name)
  end
end
for _, id in ipairs(call('ZRANGE', SCHED, 0, -1)) do
  call('ZADD', SCHED_IDS, 0, id)
end
call('DEL', SUBS, WAITING)
call('HDEL', META, 'shards', 'mark', 'marked')
call('HSET', META, 'stamp', m[2] .. ':0', 'rev', 1, 'added', whole(number), 'gens', 0)
return { 'ok', 1 }
