-- Notes a step that must not be done twice.
-- KEYS: 1 step, 2 context
-- ARGV: 1 fence, 2 keep ms
-- Returns 'first', 'again', 'none' or 'conflict'.
local fence = redis.call('HGET', KEYS[2], 'fence')
if not fence then return 'none' end
if fence ~= ARGV[1] then return 'conflict' end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 'first' end
return 'again'
