-- Takes a transfer over whose lease is over.
-- KEYS: 1 context, 2 by_call_sid, 3 events, 4 live, 5 step of the dial
-- ARGV: 1 id, 2 owner, 3 lease ms, 4 keep ms, 5 wake channel
-- Returns name and value of each field; empty: somebody else was quicker, or there is none.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[4], ARGV[1])
if not lease or tonumber(lease) > now then return {} end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('ZREM', KEYS[4], ARGV[1])
  return {}
end
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
local fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'updated', now)
redis.call('XADD', KEYS[3], version .. '-0', 'kind', 'claim', 'state', redis.call('HGET', KEYS[1], 'state'),
  'reason', redis.call('HGET', KEYS[1], 'reason'), 'fence', fence, 'at', now)
redis.call('ZADD', KEYS[4], now + ARGV[3], ARGV[1])
for _, i in ipairs({1, 2, 3, 5}) do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
redis.call('PUBLISH', ARGV[5], ARGV[1])
return redis.call('HGETALL', KEYS[1])
