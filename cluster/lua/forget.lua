-- Forgets an instance that is dead.
-- KEYS: 1 instances
-- ARGV: 1 name
local t = redis.call('TIME')
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
if until_ and tonumber(until_) <= t[1] * 1000 + math.floor(t[2] / 1000) then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
