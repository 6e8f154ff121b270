-- Opens a finished job's next run: what its output lacks is sent back in shards that were staged under a word, in
-- place of a job's id, and all else is done.
-- ARGV: job, incarnation, run, done bits, word, how many shards were staged, the first of their numbers, which
-- follow one another
-- Returns 'ok', 'gone', 'moved' (somebody else did), 'expired' (what was staged), or 'taken by JOB'
local id, word, count, first = ARGV[1], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
if not is_current(id, ARGV[2]) then return 'gone' end
local job = redis.call('HMGET', key(id), 'state', 'run', 'output_key', 'priority', 'total')
if job[1] ~= 'finished' or job[2] ~= ARGV[3] then return 'moved' end
local owner = redis.call('GET', job[3])
if owner then return 'taken by ' .. owner end
if redis.call('HLEN', key(word, 'shards')) ~= count then return 'expired' end

for shard = first, first + count - 1 do
  redis.call('HSET', key(id, 'shards'), shard, redis.call('HGET', key(word, 'shards'), shard))
  redis.call('RPUSH', key(id, 'ready'), shard)
end
redis.call('DEL', key(word, 'shards'))
redis.call('SET', key(id, 'done'), ARGV[4])
redis.call('BITOP', 'AND', key(id, 'flagged'), key(id, 'flagged'), key(id, 'done'))
redis.call('DEL', key(id, 'failures'), key(id, 'expiries'), key(id, 'deaths'), key(id, 'broken'))
local done = redis.call('BITCOUNT', key(id, 'done'))
redis.call('HINCRBY', key(id), 'shards', count)
redis.call('HINCRBY', key(id), 'run', 1)
-- What lies in the spool below this run's first shard is adopted from.
redis.call('HSET', key(id), 'first_shard', first, 'done', done, 'left', tonumber(job[5]) - done, 'failed', 0,
  'flagged', redis.call('BITCOUNT', key(id, 'flagged')), 'state', 'sealed', 'ending', '', 'reason', '',
  'finished', 0, 'waiting_since', clock(), 'window_at', 0, 'window_count', 0, 'window_rate', 0, 'started', 0)
redis.call('HDEL', key(id), 'outcome')
redis.call('SET', job[3], id)
redis.call('ZADD', ACTIVE, job[4], id)
redis.call('PERSIST', key(id))
for _, part in ipairs(JOB_PARTS) do redis.call('PERSIST', key(id, part)) end
settle(id)
return 'ok'
