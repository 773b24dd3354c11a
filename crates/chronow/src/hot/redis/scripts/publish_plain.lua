-- The usual publish, for which there is nothing to look up, and which needs few of the shard's keys. ARGV: as of `publish`, but only runs without a not before, ttl and dedup id. Answers
-- {'other'} if it is not that simple here; then nothing was done, and `publish` has to be asked.
local m = call('HMGET', META, 'stamp', 'max', 'ttl', 'auto', 'last', 'added', 'rev', 'news')
if m[1] ~= ARGV[1] or m[4] then
  return { 'other' }
end
local till = m[3] and m[3] ~= '' and whole(NOW + tonumber(m[3]))
local at, count = 2, 0
while at <= #ARGV do
  local run = tonumber(ARGV[at])
  count = count + run
  at = at + 3 + (run + 1) * tonumber(ARGV[at + 2])
end
if call('XLEN', K) + call('ZCARD', HELD_ORDER) + call('ZCARD', SCHED) + count > tonumber(m[2]) then
  return { 'other' }
end
know_last(m[5])
ADDED = tonumber(m[6])
local begin, first = mint_many(count)
local seq = first

local PADDED
-- The next id. Lua takes half as long to write a number as Redis to add an entry, so batches look up the last two digits.
local head, rest
local function next_of_batch()
  if not rest or rest == 100 then
    local hundreds = math.floor(seq / 100)
    rest = seq - hundreds * 100
    head = begin .. whole(hundreds)
  end
  seq, rest = seq + 1, rest + 1
  return head .. PADDED[rest]
end
local function next_of_few()
  seq = seq + 1
  return begin .. whole(seq - 1)
end
local next_new = next_of_few
if count > 16 then
  next_new = next_of_batch
  PADDED = {
    '00', '01', '02', '03', '04', '05', '06', '07', '08', '09',
    '10', '11', '12', '13', '14', '15', '16', '17', '18', '19',
    '20', '21', '22', '23', '24', '25', '26', '27', '28', '29',
    '30', '31', '32', '33', '34', '35', '36', '37', '38', '39',
    '40', '41', '42', '43', '44', '45', '46', '47', '48', '49',
    '50', '51', '52', '53', '54', '55', '56', '57', '58', '59',
    '60', '61', '62', '63', '64', '65', '66', '67', '68', '69',
    '70', '71', '72', '73', '74', '75', '76', '77', '78', '79',
    '80', '81', '82', '83', '84', '85', '86', '87', '88', '89',
    '90', '91', '92', '93', '94', '95', '96', '97', '98', '99',
  }
end

at = 2
while at <= #ARGV do
  local run, width = tonumber(ARGV[at]), tonumber(ARGV[at + 2])
  local values = at + 3 + width
  if width == 1 and not till then
    local name = ARGV[at + 3]
    for i = values, values + run - 1 do
      call('XADD', K, next_new(), name, ARGV[i])
    end
  else
    local fields = {}
    for i = 1, width do
      fields[2 * i - 1] = ARGV[at + 2 + i]
    end
    if till then
      fields[2 * width + 1], fields[2 * width + 2] = 'until', till
    end
    for from = values, values + (run - 1) * width, width do
      for i = 1, width do
        fields[2 * i] = ARGV[from + i - 1]
      end
      call('XADD', K, next_new(), unpack(fields))
    end
  end
  at = values + run * width
end
keep_minted(count)
wake_each()
return { 'ok', begin, first, (m[7] or '') .. '.' .. (m[8] or '') }
