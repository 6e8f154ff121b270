-- Notes why a worker does not take a job for a while, and gives its claim back.
-- Returns 1, or -1 when the lease is lost
if not holds(fence) then return -1 end
local now = clock()
local refusal = {reason = reason, ['until'] = now + refusal_ms}
redis.call('HSET', key(fence.job_id, 'refusals'), worker, cjson.encode(refusal))
put_back(fence.job_id, fence.shard, now)
count('refusals')
return 1
