-- Gives a transfer and the time.
-- KEYS: 1 context
-- Returns {now in Unix ms, name and value of each field}; the list is empty where there is none.
local t = redis.call('TIME')
return {t[1] * 1000 + math.floor(t[2] / 1000), redis.call('HGETALL', KEYS[1])}
