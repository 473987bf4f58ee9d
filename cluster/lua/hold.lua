-- Holds something for an instance, unless another one does, or lets it go.
-- KEYS: 1 what
-- ARGV: 1 name, 2 for how long, ms; 0: it is let go
-- Returns 1 where the instance holds it, or nobody does.
local is = redis.call('GET', KEYS[1])
if is and is ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
