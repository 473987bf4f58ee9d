-- Stores a new transfer, unless its call has a live one.
-- KEYS: 1 context, 2 by_call_sid, 3 events
-- ARGV: 1 id, 2 keep ms, 3 ms until the first state is over, 4 how the keys of the contexts of its call begin, then name
--       and value of each field
-- Returns {id of the transfer in the way or '', now in Unix ms}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local busy = redis.call('GET', KEYS[2])
-- An index whose record was evicted is in nobody's way.
if busy and redis.call('EXISTS', ARGV[4] .. string.match(busy, '[^_]*$')) == 1 then return {busy, now} end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('HSET', KEYS[1], 'created', now, 'updated', now, 'due', now + ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('XADD', KEYS[3], '1-0', 'kind', 'create', 'state', 'requested', 'reason', '', 'fence', 1, 'at', now)
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return {'', now}
