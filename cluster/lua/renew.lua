-- Keeps an instance a member, or lets it go.
-- KEYS: 1 instances (a sorted set: until when each lives, Unix ms)
-- ARGV: 1 name, 2 lease ms; 0: it leaves
-- Returns name and ms left (0 or less: dead) of each.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local out = {}
local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #all, 2 do
  out[i], out[i + 1] = all[i], tonumber(all[i + 1]) - now
end
return out
