-- Shared by all scripts about topics: put before each of them, mostly with `lib.lua` behind it. KEYS[1] is the stream of one shard of a topic;
-- everything else of the shard has a key that begins with it, and so lies in the same slot. Every key that a script may touch is given in KEYS all
-- the same, although it is named here, and beside them one that no one ever writes: while a slot moves, a server then refuses the call before anything
-- is done.
--
-- Replies: {'ok', …}, or {'notopic'}, {'stale', stamp} (the caller knows another number of shards or generation), {'old'} (the shard has the shape
-- of an earlier version), {'nosub'}, {'idle', subscription…} (these want to be removed; nothing else was done), {'crowded', subscription…} (one of
-- these may have room to give back), {'full', owed}, {'changed', options}.
--
-- A message is a list of names and values: payload, and if given type, headers, key, until (expiry), id and at (its id and publish time, where
-- they are not those of its stream entry). Entries of a shard are counted from 1: `added` is the number of the last one, and the number of another
-- follows from how far it is from the end. A subscription has read the entries up to `read`, the last of which is `at`. It keeps a record of each
-- message it has taken and not settled:
--   token|locked until|handler starts|where|ordering key
-- with the token of the pull that handed it out, empty if it is not in flight, and `where` empty if it lies in the stream under its own id, `h` if it
-- is held beside it, else the id of its stream entry. A message is held once for all its subscriptions, so that the stream can be cut off before it.

local call = redis.call
local K = KEYS[1]
local META = K .. ':meta'
local ACK_FLOORS, IDLE = K .. ':floors', K .. ':idle'
local HELD, HELD_ORDER, HELD_REFS = K .. ':held', K .. ':held-order', K .. ':held-refs'
local SCHED, SCHED_BODY, SCHED_IDS = K .. ':scheduled', K .. ':scheduled-messages', K .. ':scheduled-ids'
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

-- Those who wait are kept as `subscription|until|channel|number`: of one subscription the one that waits longest is called first, and no longer
-- waits. One whose time is over is gone, and so is one whose channel nobody hears; in a cluster others may hear it on another node.
local function wake(name)
  while true do
    local found = call('ZREVRANGEBYLEX', WAITING, '[' .. name .. '}', '[' .. name .. '|', 'LIMIT', 0, 1)[1]
    if not found then
      return
    end
    call('ZREM', WAITING, found)
    local till, channel = string.match(found, '|(%d+)|(.*)|%d+$')
    if tonumber(till) > NOW then
      local heard = call('PUBLISH', channel, K .. '\n' .. name)
      if heard > 0 or string.find(channel, '*', 1, true) then
        return
      end
    end
  end
end

-- Wakes one of each subscription that waits.
local function wake_each()
  local from = '-'
  while true do
    local found = call('ZRANGEBYLEX', WAITING, from, '+', 'LIMIT', 0, 1)[1]
    if not found then
      return
    end
    local name = string.match(found, '^[^|]*')
    wake(name)
    -- '}' comes behind '|'.
    from = '[' .. name .. '}'
  end
end

-- New ids, growing whatever the clock does: `count` of them, which differ in their last number alone. That has always six digits, so that ids are in
-- order as texts, too; when they are used up, the next millisecond begins early. Returns the first: what comes before that number, and the number.
local FIRST_OF_MOMENT, LAST_OF_MOMENT = 100000, 999999
local last_ms, last_seq, last_prefix
local function know_last(last)
  last_ms, last_seq = 0, 0
  if last then
    last_ms, last_seq = parse(last)
  end
  last_prefix = whole(last_ms) .. '-'
end

local function mint_many(count)
  if NOW > last_ms then
    last_ms, last_seq = NOW, 0
  end
  last_seq = math.max(last_seq, FIRST_OF_MOMENT - 1)
  if last_seq + count > LAST_OF_MOMENT then
    last_ms, last_seq = last_ms + 1, FIRST_OF_MOMENT - 1
  end
  last_prefix = whole(last_ms) .. '-'
  last_seq = last_seq + count
  return last_prefix, last_seq - count + 1
end

local function mint()
  local prefix, seq = mint_many(1)
  return prefix .. whole(seq)
end

-- How many entries the shard ever had.
local ADDED = 0
local function keep_minted(added)
  ADDED = ADDED + added
  call('HSET', META, 'last', last_prefix .. whole(last_seq), 'added', whole(ADDED))
end
