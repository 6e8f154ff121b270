-- Takes a shard that cannot be read out of its job; its images stay neither done nor failed.
-- ARGV: job, incarnation, shard, attempt, reason. Returns 1, or -1 when the lease is lost
local id, shard = ARGV[1], ARGV[3]
if not holds(id, ARGV[2], shard, ARGV[4]) then return -1 end
redis.call('HSET', key(id, 'broken'), shard, ARGV[5])
drop_lease(id, shard)
settle(id)
return 1
