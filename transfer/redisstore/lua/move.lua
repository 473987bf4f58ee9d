-- Changes a transfer that has not changed since it was read: record, index and log together.
-- KEYS: 1 context, 2 by_call_sid, 3 events, 4 and 5 steps that are not done twice
-- ARGV: 1 id, 2 version and 3 fence as read, 4 the new version, 5 whether it is final, 6 keep ms,
--       7 kind, 8 state, 9 reason, 10 time of the log entry, then name and value of each changed field
-- Returns 'ok', 'none' or 'conflict'.
local is = redis.call('HMGET', KEYS[1], 'version', 'fence')
if not is[1] then return 'none' end
if is[1] ~= ARGV[2] or is[2] ~= ARGV[3] then return 'conflict' end
if #ARGV >= 11 then redis.call('HSET', KEYS[1], unpack(ARGV, 11)) end
redis.call('XADD', KEYS[3], ARGV[4] .. '-0', 'kind', ARGV[7], 'state', ARGV[8], 'reason', ARGV[9], 'fence', ARGV[3], 'at', ARGV[10])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[3], ARGV[6])
local indexed = redis.call('GET', KEYS[2]) == ARGV[1]
if ARGV[5] == '1' then
  redis.call('PEXPIRE', KEYS[4], ARGV[6])
  redis.call('PEXPIRE', KEYS[5], ARGV[6])
  if indexed then redis.call('DEL', KEYS[2]) end
elseif indexed then
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
return 'ok'
