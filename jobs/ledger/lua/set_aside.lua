-- Takes a shard that cannot be read out of its job; its images stay neither done nor failed.
-- Returns 1, or -1 when the lease is lost
if not holds(fence) then return -1 end
redis.call('HSET', key(fence.job_id, 'broken'), fence.shard, reason)
drop_lease(fence.job_id, fence.shard)
settle(fence.job_id)
return 1
