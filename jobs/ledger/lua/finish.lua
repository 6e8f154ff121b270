-- Ends a job for good: one finish event a run, the output free again, every key with a TTL.
-- ARGV: job, incarnation, attempt. Returns 1, or -1 when the lease is lost
local id, now = ARGV[1], clock()
if not holds(id, ARGV[2], 'finish', ARGV[3]) then return -1 end
drop_lease(id, 'finish')
local job = redis.call('HMGET', key(id), 'outcome', 'failed', 'output_key', 'retention', 'done', 'run')
redis.call('HSET', key(id), 'state', 'finished', 'finished', now)
redis.call('ZREM', ACTIVE, id)
if redis.call('GET', job[3]) == id then redis.call('DEL', job[3]) end
redis.call('EXPIRE', key(id), job[4])
for _, part in ipairs(JOB_PARTS) do redis.call('EXPIRE', key(id, part), job[4]) end
redis.call('XADD', PREFIX .. 'events', 'MAXLEN', '~', 1000, '*', 'event', 'finished', 'job', id, 'run', job[6],
  'outcome', job[1], 'done', job[5], 'failed', job[2])
return 1
