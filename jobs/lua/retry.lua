-- Sends a finished job's failures back as new shards and opens its next run.
-- ARGV: job, incarnation, run, count of indices, indices …, then shard number, blob …
-- Returns 'ok', 'gone', 'moved' (somebody else did), or {'taken', owner}'s owner
local id = ARGV[1]
if not is_current(id, ARGV[2]) then return 'gone' end
local job = redis.call('HMGET', key(id), 'state', 'run', 'output_key', 'priority')
if job[1] ~= 'finished' or job[2] ~= ARGV[3] then return 'moved' end
local owner = redis.call('GET', job[3])
if owner then return 'taken by ' .. owner end
local count, now = tonumber(ARGV[4]), clock()
local cleared = 0
for i = 5, 4 + count do cleared = cleared + redis.call('HDEL', key(id, 'failures'), ARGV[i]) end
for i = 5 + count, #ARGV, 2 do
  redis.call('HSET', key(id, 'shards'), ARGV[i], ARGV[i + 1])
  redis.call('RPUSH', key(id, 'ready'), ARGV[i])
  redis.call('HINCRBY', key(id), 'shards', 1)
end
redis.call('HINCRBY', key(id), 'failed', 0 - cleared)
redis.call('HINCRBY', key(id), 'left', cleared)
redis.call('HINCRBY', key(id), 'run', 1)
redis.call('HSET', key(id), 'state', 'sealed', 'ending', '', 'reason', '', 'finished', 0, 'waiting_since', now,
  'window_at', 0, 'window_count', 0, 'window_rate', 0, 'started', 0)
redis.call('HDEL', key(id), 'outcome')
redis.call('SET', job[3], id)
redis.call('ZADD', ACTIVE, job[4], id)
redis.call('PERSIST', key(id))
for _, part in ipairs(JOB_PARTS) do redis.call('PERSIST', key(id, part)) end
settle(id)
return 'ok'
