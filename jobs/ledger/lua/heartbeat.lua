-- Notes that a worker is alive, and facts about it. Those that were not heard of for long are taken off the list; so
-- are those of the future: Redis' clock stepped back since. Returns 1
even_when_full()
drop_foreign('zset', WORKERS)
local name, now = WORKER .. worker, precise_clock() / 1000
drop_foreign('hash', name)
redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now - WORKER_TTL)
redis.call('ZREMRANGEBYSCORE', WORKERS, '(' .. string.format('%.6f', now), '+inf')
redis.call('ZADD', WORKERS, now, worker)
for fact, value in pairs(facts) do redis.call('HSET', name, fact, value) end
redis.call('EXPIRE', name, WORKER_TTL)
return 1
