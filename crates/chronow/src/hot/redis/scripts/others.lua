-- ARGV: shards, subscription, ids. Answers 1 for each id that another subscription has not settled, or has as a dead letter, or may still get; also
-- where this subscription does not have the message, and so doesn't know.
local s, c = enter_sub()
if not s then
  return c
end
-- What everybody has read is out of the stream then, so that no later subscription begins with it.
trim(true)

-- As positions of held messages are written.
local function rounded(position)
  return tonumber(string.format('%.4f', position))
end

local groups, others = positions(), {}
for _, name in ipairs(call('SMEMBERS', SUBS)) do
  if name ~= s.name then
    local other = sub_of(name)
    local group = groups[other.group]
    others[#others + 1] = { messages = other.messages, dlq = other.dlq, last = group and order(group.last) or 0 }
  end
end

local function needed(id)
  local text = call('HGET', s.messages, id)
  local record = text and unpack_record(text)
  if not record then
    return true
  end
  local position
  if record.where == 'h' then
    position = tonumber(call('ZSCORE', HELD_ORDER, id) or '0')
  else
    position = rounded(order(entry_of(id, record.where)))
  end
  for _, other in ipairs(others) do
    if call('HEXISTS', other.messages, id) == 1 or call('HEXISTS', other.dlq, id) == 1 then
      return true
    end
    -- Behind the 4,095th message of a millisecond places are not told apart.
    local last = rounded(other.last)
    if last < position or (last == position and position - math.floor(position) > 0.9996) then
      return true
    end
  end
  return false
end

local answers = {}
for i = 3, #ARGV do
  answers[#answers + 1] = needed(ARGV[i]) and '1' or '0'
end
return { 'ok', table.concat(answers) }
