-- Removes a subscription that nobody uses in any shard. ARGV: name; in the first shard, when it was last used as far as that one knew, and when it was
-- according to the others ('' if it is to go). Answers the last use in this shard, or 1 if it was removed.
local s = sub_of(ARGV[1])
local seen = call('HGET', s.config, 'seen')
if ARGV[2] then
  if seen ~= ARGV[2] then
    return { 'ok', 0 }
  elseif ARGV[3] ~= '' then
    call('HSET', s.config, 'seen', ARGV[3])
    return { 'ok', 0 }
  end
  remove_sub(ARGV[1])
  wake()
  return { 'ok', 1 }
elseif call('ZCOUNT', s.locks, '(' .. whole(NOW), '+inf') > 0 then
  return { 'ok', NOW }
end
return { 'ok', tonumber(seen or '0') }
