-- Shared by all scripts about topics: put before each of them, mostly with `lib.lua` behind it. KEYS[1] is the stream of one shard of a topic;
-- everything else of the shard has a key that begins with it, and so lies in the same slot.
--
-- Replies: {'ok', …}, or {'notopic'}, {'stale'} (the caller knows another number of shards), {'nosub'}, {'reaped', subscription…} (idle
-- subscriptions are gone; nothing else was done, call again), {'full', owed}, {'changed', options}.
--
-- A message is a list of names and values: payload, and if given type, headers, key, until (expiry), id and at (its id and publish time, where
-- they are not those of its stream entry). A subscription keeps a record of each message it has taken and not settled:
--   token|locked until|handler starts|where|ordering key
-- with the token of the pull that handed it out, empty if it is not in flight, and `where` empty if it lies in the stream under its own id, `h` if it
-- is held beside it, else the id of its stream entry. A message is held once for all its subscriptions, so that the stream can be cut off before it.

local call = redis.call
local K = KEYS[1]
local META = K .. ':meta'
local SUBS = K .. ':subs'
local HELD, HELD_ORDER, HELD_REFS = K .. ':held', K .. ':held-order', K .. ':held-refs'
local SCHED, SCHED_BODY = K .. ':scheduled', K .. ':scheduled-messages'
local DEDUP, DEDUP_AT = K .. ':dedup', K .. ':dedup-at'
local WAITING = K .. ':waiting'
local time = call('TIME')
local NOW_US = time[1] * 1000000 + time[2]
local NOW = math.floor(NOW_US / 1000)

-- Lua would write big numbers with an exponent.
local function whole(n)
  return string.format('%.0f', n)
end

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- What waits for messages hears of it; without waiters nothing is sent.
local function wake()
  if call('DEL', WAITING) == 1 then
    call('PUBLISH', string.gsub(K, '#%d+}$', '}') .. ':wake', '1')
  end
end

-- New ids, growing whatever the clock does: `count` of them, which differ in their last number alone. Returns the first: what comes before that
-- number, and the number.
local last_ms, last_seq, last_prefix
local function know_last(last)
  last_ms, last_seq = 0, 0
  if last then
    last_ms, last_seq = parse(last)
  end
  last_prefix = whole(last_ms) .. '-'
end

local function mint_many(count)
  if not last_ms then
    know_last(call('HGET', META, 'last'))
  end
  if NOW > last_ms then
    last_ms, last_seq, last_prefix = NOW, -1, whole(NOW) .. '-'
  end
  last_seq = last_seq + count
  return last_prefix, last_seq - count + 1
end

local function mint()
  local prefix, seq = mint_many(1)
  return prefix .. whole(seq)
end

local function keep_minted()
  if last_ms then
    call('HSET', META, 'last', last_prefix .. whole(last_seq))
  end
end
