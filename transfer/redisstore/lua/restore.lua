-- Writes a transfer as its owner knows it, where there is none, or an older one.
-- KEYS: 1 context, 2 by_call_sid, 3 events
-- ARGV: 1 id, 2 version, 3 fence, 4 keep ms, 5 state, 6 reason, 7 time of the log entry, 8 whether it is final,
--       then name and value of each field
-- Returns 'ok' or 'conflict'.
local is = redis.call('HMGET', KEYS[1], 'version', 'fence')
if is[1] then
  local version, fence = tonumber(is[1]), tonumber(is[2])
  if fence > tonumber(ARGV[3]) or fence == tonumber(ARGV[3]) and version >= tonumber(ARGV[2]) then return 'conflict' end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 9))
redis.call('XADD', KEYS[3], ARGV[2] .. '-0', 'kind', 'restore', 'state', ARGV[5], 'reason', ARGV[6], 'fence', ARGV[3], 'at', ARGV[7])
local index = redis.call('GET', KEYS[2])
if ARGV[8] == '1' then
  if index == ARGV[1] then redis.call('DEL', KEYS[2]) end
elseif not index then
  redis.call('SET', KEYS[2], ARGV[1])
end
for _, k in ipairs(KEYS) do redis.call('PEXPIRE', k, ARGV[4]) end
return 'ok'
