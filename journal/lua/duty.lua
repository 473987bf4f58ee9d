-- Takes, keeps or gives up the duty to tell of events.
-- KEYS: 1 duty
-- ARGV: 1 instance, 2 lease ms; 0: it is given up
-- Returns 1 where the instance has it.
local is = redis.call('GET', KEYS[1])
if is and is ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
