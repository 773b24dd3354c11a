-- ARGV: name
local existed = remove_sub(ARGV[1])
wake()
return { 'ok', existed }
