-- Stores a new transfer, unless its call has a live one.
-- KEYS: 1 context, 2 by_call_sid, 3 events, 4 live
-- ARGV: 1 id, 2 lease ms, 3 keep ms, 4 ms until the first state is over, 5 wake channel, then name and value of each field
-- Returns {id of the transfer in the way or '', now in Unix ms}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local busy = redis.call('GET', KEYS[2])
if busy then return {busy, now} end
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'created', now, 'updated', now, 'due', now + ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
redis.call('XADD', KEYS[3], '1-0', 'kind', 'create', 'state', 'requested', 'reason', '', 'fence', 1, 'at', now)
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('ZADD', KEYS[4], now + ARGV[2], ARGV[1])
redis.call('PUBLISH', ARGV[5], ARGV[1])
return {'', now}
