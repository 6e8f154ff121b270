-- A worker says why it does not take a job for a while, and gives its claim back.
-- ARGV: job, incarnation, shard, attempt, worker, reason, for how many ms. Returns 1, or -1 when it was lost
local id, now = ARGV[1], clock()
if not holds(id, ARGV[2], ARGV[3], ARGV[4]) then return -1 end
local refusal = {reason = ARGV[6]}
refusal['until'] = now + tonumber(ARGV[7])
redis.call('HSET', key(id, 'refusals'), ARGV[5], cjson.encode(refusal))
put_back(id, ARGV[3], now)
return 1
