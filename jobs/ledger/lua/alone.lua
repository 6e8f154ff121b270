-- Notes that one image has a worker's slots to itself from now on: if the lease runs out, the image is to blame.
-- Returns 1, or -1 when the lease is lost
if not holds(fence) then return -1 end
local lease = lease_of(fence.job_id, fence.shard)
lease.alone = image
redis.call('HSET', key(fence.job_id, 'leased'), fence.shard, cjson.encode(lease))
return 1
