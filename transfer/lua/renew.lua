-- Keeps a transfer with its owner.
-- KEYS: 1 context, 2 by_call_sid, 3 events, 4 live, 5 step of the dial
-- ARGV: 1 id, 2 fence, 3 lease ms, 4 keep ms
-- Returns 1, or 0 where it has another owner or is over.
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return 0 end
if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then return 0 end
local t = redis.call('TIME')
redis.call('ZADD', KEYS[4], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3], ARGV[1])
for _, i in ipairs({1, 2, 3, 5}) do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
return 1
