-- Adds an event of a call to the journal, unless it is there already.
-- KEYS: 1 journal (a stream), 2 what was told of the call (a hash)
-- ARGV: 1 call, 2 type, 3 what is the same of an event that is told again, 4 body, 5 keep ms,
--       6 keep ms once the call is over, 7 most entries, 8 whether the end of a stream is not waited for
-- Returns 'told', 'again' (it was), or 'waits': the end of the call, before that of its stream.
local is = redis.call('HMGET', KEYS[2], 'over', 'live', 'end')
local late = ARGV[2] == 'call.transfer' or ARGV[2] == 'call.transcript' -- may come after the end
if is[1] and not late then return 'again' end
local function add(type, body)
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[7], '*', 'call', ARGV[1], 'type', type, 'body', body)
end
local function over(body)
  add('call.ended', body)
  redis.call('HSET', KEYS[2], 'over', 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
if ARGV[2] == 'call.ended' then
  if is[2] == '1' and ARGV[8] ~= '1' then
    redis.call('HSETNX', KEYS[2], 'end', ARGV[4])
    return 'waits'
  end
  over(is[3] or ARGV[4])
  return 'told'
end
if ARGV[2] == 'call.ringing' and redis.call('HEXISTS', KEYS[2], 'call.answered') == 1 then return 'again' end
if redis.call('HSETNX', KEYS[2], ARGV[3], 1) == 0 then return 'again' end
add(ARGV[2], ARGV[4])
if ARGV[2] ~= 'call.transcript' then redis.call('HSET', KEYS[2], 'last', ARGV[4]) end -- it changes nothing
redis.call('PEXPIRE', KEYS[2], is[1] and ARGV[6] or ARGV[5])
if ARGV[2] == 'call.streaming' then redis.call('HSET', KEYS[2], 'live', 1) end
if ARGV[2] == 'call.stream_ended' then
  redis.call('HSET', KEYS[2], 'live', 0)
  if is[3] then over(is[3]) end
end
return 'told'
