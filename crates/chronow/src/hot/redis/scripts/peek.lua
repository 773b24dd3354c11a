-- ARGV: shards, subscription, limit
local s, c = enter_sub()
if not s then
  return c
end
local limit = tonumber(ARGV[3])
local found = {}
local function add(key, place, begin)
  local list = call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #list, 2 do
    if not begin or after(list[i], begin) then
      found[#found + 1] = { id = list[i], score = tonumber(list[i + 1]), place = place, order = order(list[i]) }
    end
  end
end
add(s.locks, 'flight')
add(s.retry, 'retry')
add(s.deferred, 'deferred')
add(SCHED, 'scheduled', c.begin)
for _, member in ipairs(call('ZRANGE', s.blocked, 0, -1)) do
  local length = string.match(member, '^(%d+):')
  local id = string.sub(member, #length + 1 + tonumber(length) + 1 + 28)
  found[#found + 1] = { id = id, score = 0, place = 'unread', order = order(id) }
end
table.sort(found, function(a, b)
  return a.order < b.order or (a.order == b.order and a.id < b.id)
end)
local out = {}
for i = 1, math.min(limit, #found) do
  local m = found[i]
  local starts, fields, till = 0, nil, ''
  if m.place == 'scheduled' then
    local body = call('HGET', SCHED_BODY, m.id)
    fields = body and cmsgpack.unpack(body)
    till = whole(m.score)
  else
    local text = call('HGET', s.messages, m.id)
    local record = text and unpack_record(text)
    if record then
      starts = record.starts
      fields = fields_of(m.id, record.where)
    end
    if m.place == 'retry' then
      m.place = m.score > NOW and 'scheduled' or 'unread'
    end
    if m.place == 'flight' or m.place == 'scheduled' then
      till = whole(m.score)
    end
  end
  if fields then
    out[#out + 1] = { m.id, m.place, starts, till, fields }
  end
end
local group = positions()[s.group]
if group then
  for _, entry in ipairs(call('XRANGE', K, next_id(group.last), '+', 'COUNT', limit)) do
    out[#out + 1] = { field(entry[2], 'id') or entry[1], 'unread', 0, '', entry[2] }
  end
end
return { 'ok', out }
