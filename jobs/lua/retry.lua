-- Sends back what a finished job's output lacks as new shards, and opens the job's next run.
-- ARGV: job, incarnation, run, count and indices of what the output holds after all, count and indices of what
-- it lacks, then shard number, blob …
-- Returns 'ok', 'gone', 'moved' (somebody else did), or 'taken by JOB'
local id = ARGV[1]
if not is_current(id, ARGV[2]) then return 'gone' end
local job = redis.call('HMGET', key(id), 'state', 'run', 'output_key', 'priority')
if job[1] ~= 'finished' or job[2] ~= ARGV[3] then return 'moved' end
local owner = redis.call('GET', job[3])
if owner then return 'taken by ' .. owner end
local now, at, held = clock(), 5, {}
for i = at, at + tonumber(ARGV[4]) - 1 do held[#held + 1] = ARGV[i] end
mark_done(id, held, now)
at = at + #held
local count = tonumber(ARGV[at])
for i = at + 1, at + count do
  if redis.call('SETBIT', key(id, 'done'), ARGV[i], 0) == 1 then
    redis.call('HINCRBY', key(id), 'done', -1)
    redis.call('HINCRBY', key(id), 'left', 1)
    if redis.call('SETBIT', key(id, 'flagged'), ARGV[i], 0) == 1 then
      redis.call('HINCRBY', key(id), 'flagged', -1)
    end
  end
  redis.call('HDEL', key(id, 'deaths'), ARGV[i])
  if redis.call('HDEL', key(id, 'failures'), ARGV[i]) == 1 then
    redis.call('HINCRBY', key(id), 'failed', -1)
    redis.call('HINCRBY', key(id), 'left', 1)
  end
end
redis.call('DEL', key(id, 'expiries'), key(id, 'broken'))
at = at + count + 1
-- What lies in the spool below this run's first shard is adopted from.
if ARGV[at] then redis.call('HSET', key(id), 'first_shard', ARGV[at]) end
for i = at, #ARGV, 2 do
  redis.call('HSET', key(id, 'shards'), ARGV[i], ARGV[i + 1])
  redis.call('RPUSH', key(id, 'ready'), ARGV[i])
  redis.call('HINCRBY', key(id), 'shards', 1)
end
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
