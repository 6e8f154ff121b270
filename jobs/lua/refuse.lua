-- A worker says why it does not take a job, and gives the shard back. ARGV: job, incarnation, shard, attempt, worker, reason
if not is_current(ARGV[1], ARGV[2]) then return -1 end
redis.call('HSET', key(ARGV[1], 'refusals'), ARGV[5], ARGV[6])
if not holds(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return -1 end
put_back(ARGV[1], ARGV[3], clock())
return 1
