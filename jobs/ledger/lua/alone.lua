-- Says that from now on one image has a worker's slots to itself: should its lease run out, the image is to blame.
-- ARGV: job, incarnation, shard, attempt, image. Returns 1, or -1 when the lease is lost
local id, shard = ARGV[1], ARGV[3]
if not holds(id, ARGV[2], shard, ARGV[4]) then return -1 end
local lease = cjson.decode(redis.call('HGET', key(id, 'leased'), shard))
lease.alone = tonumber(ARGV[5])
redis.call('HSET', key(id, 'leased'), shard, cjson.encode(lease))
return 1
