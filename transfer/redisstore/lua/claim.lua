-- Takes a transfer over whose owner is dead.
-- KEYS: 1 context, 2 events
-- ARGV: 1 the dead owner, 2 the new one, 3 keep ms
-- Returns name and value of each field; empty: it has another owner, is over, or there is none.
local is = redis.call('HMGET', KEYS[1], 'owner', 'state', 'reason')
if is[1] ~= ARGV[1] then return {} end
for _, over in ipairs({'ended', 'failed', 'canceled', 'timed_out'}) do
  if is[2] == over then return {} end
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
local fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'updated', now)
redis.call('XADD', KEYS[2], version .. '-0', 'kind', 'claim', 'state', is[2], 'reason', is[3] or '', 'fence', fence, 'at', now)
for _, k in ipairs(KEYS) do redis.call('PEXPIRE', k, ARGV[3]) end
return redis.call('HGETALL', KEYS[1])
