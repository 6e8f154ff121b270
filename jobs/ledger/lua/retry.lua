-- Opens a finished job's next run. What its output lacks is sent back in shards that were staged under a word
-- instead of a job's id; everything else is done.
-- Returns 'ok', 'gone', 'moved' (another call sent it back), 'unnamed' (Redis lost which output it has), 'expired' (the
-- staged shards are gone), or 'taken by JOB'
-- A user without this key, whom an ACL file of an earlier version has, fails before anything is written.
redis.call('EXISTS', CLAIMABLE)
mend_shared()
mend_job(job_id)
if not is_current(job_id, incarnation) then return 'gone' end
local job = redis.call('HMGET', key(job_id), 'state', 'run', 'priority', 'total')
local state, last_run, priority, total = unpack(job)
local output_key = output_key_of(job_id)
if state ~= 'finished' or tonumber(last_run) ~= run then return 'moved' end
if not output_key then return 'unnamed' end
local owner = owner_of(output_key)
if owner then return 'taken by ' .. owner end
if redis.call('HLEN', key(staged.word, 'shards')) ~= staged.shards then return 'expired' end

local first = staged.first_waiting
for shard = first, first + staged.shards - 1 do
  redis.call('HSET', key(job_id, 'shards'), shard, redis.call('HGET', key(staged.word, 'shards'), shard))
  redis.call('RPUSH', key(job_id, 'ready'), shard)
end
redis.call('DEL', key(staged.word, 'shards'))
redis.call('SET', key(job_id, 'done'), done)
redis.call('BITOP', 'AND', key(job_id, 'flagged'), key(job_id, 'flagged'), key(job_id, 'done'))
redis.call('DEL', key(job_id, 'failures'), key(job_id, 'expiries'), key(job_id, 'deaths'), key(job_id, 'broken'))
local done_count = redis.call('BITCOUNT', key(job_id, 'done'))
redis.call('HINCRBY', key(job_id), 'shards', staged.shards)
redis.call('HINCRBY', key(job_id), 'run', 1)
-- Workers adopt finished images from the spools of shards below this run's first.
redis.call('HSET', key(job_id), 'first_shard', first, 'done', done_count, 'left', tonumber(total) - done_count,
  'failed', 0, 'flagged', redis.call('BITCOUNT', key(job_id, 'flagged')), 'state', 'sealed', 'ending', '', 'reason', '',
  'finished', 0, 'waiting_since', clock(), 'window_at', 0, 'window_count', 0, 'window_rate', 0, 'started', 0)
redis.call('HDEL', key(job_id), 'outcome', 'requeued_left')
redis.call('SET', output_key, job_id)
redis.call('ZADD', ACTIVE, priority, job_id)
redis.call('PERSIST', key(job_id))
for _, part in ipairs(JOB_PARTS) do redis.call('PERSIST', key(job_id, part)) end
settle(job_id)
return 'ok'
