-- Ends a job for good: adds one event, frees the output, and gives every key of the job a TTL.
-- Returns 1, or -1 when another attempt finishes it
if fence.shard ~= 'finish' or not holds(fence) then return -1 end
local job_id = fence.job_id
drop_lease(job_id, 'finish')
local job = redis.call('HMGET', key(job_id), 'outcome', 'failed', 'output_key', 'retention', 'done', 'run')
local outcome, failed, output_key, retention, done, run = unpack(job)
redis.call('HSET', key(job_id), 'state', 'finished', 'finished', clock(), 'cut', cut)
redis.call('ZREM', ACTIVE, job_id)
if redis.call('GET', output_key) == job_id then redis.call('DEL', output_key) end
redis.call('EXPIRE', key(job_id), retention)
for _, part in ipairs(JOB_PARTS) do redis.call('EXPIRE', key(job_id, part), retention) end
redis.call('XADD', EVENTS, 'MAXLEN', '~', 1000, '*', 'event', 'finished', 'job', job_id, 'run', run,
  'outcome', outcome, 'done', done, 'failed', failed, 'cut', cut)
return 1
