-- Takes an entry out of the directory, unless it is another instance's by now.
-- KEYS: 1 entry
-- ARGV: 1 how one's own begins, 2 the last note, 3 how long it is kept, ms
local is = redis.call('GET', KEYS[1])
if not is or string.sub(is, 1, #ARGV[1]) == ARGV[1] then
  if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], '\n' .. ARGV[2], 'PX', ARGV[3]) end
end
return 0
