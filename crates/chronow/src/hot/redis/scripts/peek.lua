-- ARGV: shards and generation, subscription, limit. Answers the first messages of every place, as far as they may be among the first of all, fewer if
-- they are large; the caller puts them in order.
local s, c = enter_sub(true)
if not s then
  return c
end
local limit = tonumber(ARGV[3])
local found = {}
local function add(ids, scheduled)
  for _, id in ipairs(ids) do
    found[#found + 1] = { id = id, scheduled = scheduled, order = order(id) }
  end
end
if not s.emptied then
  add(call('ZRANGEBYSCORE', s.order, BESIDE, BESIDE, 'LIMIT', 0, limit))
  add(call('ZRANGEBYSCORE', s.order, 0, '+inf', 'LIMIT', 0, limit))
end
add(call('ZRANGEBYLEX', SCHED_IDS, '(' .. c.begin, '+', 'LIMIT', 0, limit), true)
table.sort(found, function(a, b)
  return a.order < b.order or (a.order == b.order and a.id < b.id)
end)
local out, bytes = {}, 0
for i = 1, math.min(limit, #found) do
  local id, place, starts, fields, till = found[i].id, 'unread', 0, nil, ''
  if found[i].scheduled then
    local body = call('HGET', SCHED_BODY, id)
    fields, place, till = body and cmsgpack.unpack(body), 'scheduled', whole(tonumber(call('ZSCORE', SCHED, id) or '0'))
  else
    local text = call('HGET', s.messages, id)
    local record = text and unpack_record(text)
    if record then
      starts, fields = record.starts, fields_of(id, record.where)
      local locked = call('ZSCORE', s.locks, id)
      local due = not locked and call('ZSCORE', s.retry, id)
      if locked then
        place, till = 'flight', whole(tonumber(locked))
      elseif due and tonumber(due) > NOW then
        place, till = 'scheduled', whole(tonumber(due))
      elseif not due and call('ZSCORE', s.deferred, id) then
        place = 'deferred'
      end
    end
  end
  if fields then
    out[#out + 1] = { id, place, starts, till, fields }
    bytes = bytes + size_of(fields)
    if bytes > MAX_BYTES then
      break
    end
  end
end
local size = math.min(limit, 10)
while limit > 0 and bytes <= MAX_BYTES do
  local page = call('XRANGE', K, '(' .. c.at, '+', 'COUNT', math.min(size, limit))
  for _, entry in ipairs(page) do
    out[#out + 1] = { field(entry[2], 'id') or entry[1], 'unread', 0, '', entry[2] }
    bytes = bytes + size_of(entry[2])
    c.at = entry[1]
  end
  if #page < math.min(size, limit) then
    break
  end
  limit, size = limit - #page, size * 2
end
return { 'ok', out }
