local existed = call('EXISTS', META)
for _, name in ipairs(call('SMEMBERS', SUBS)) do
  remove_sub(name)
end
wake()
call('UNLINK', K, META, SUBS, HELD, HELD_ORDER, HELD_REFS, SCHED, SCHED_BODY, DEDUP, DEDUP_AT, WAITING)
return { 'ok', existed }
