-- Puts back a job that Redis lost, in one step: a crash must not leave half of it. The job is sealed and in its
-- second run. Its shards were staged under its incarnation instead of its id.
-- Returns 'recovered', 'known' (Redis has the job), 'expired' (the staged shards are gone), or 'taken by JOB'
-- A user without this key, whom an ACL file of an earlier version has, fails before anything is written.
redis.call('EXISTS', CLAIMABLE)
local staged, total, held = recovery.staged, recovery.total, recovery.held
mend_shared()
drop_foreign('hash', key(job_id))
if redis.call('EXISTS', key(job_id)) == 1 then return 'known' end
local owner = owner_of(new.output_key)
if owner then return 'taken by ' .. owner end
if redis.call('HLEN', key(staged.word, 'shards')) ~= staged.shards then return 'expired' end

local first = staged.first_waiting
for _, part in ipairs(JOB_PARTS) do redis.call('DEL', key(job_id, part)) end
if staged.shards > 0 then
  redis.call('RENAME', key(staged.word, 'shards'), key(job_id, 'shards'))
  redis.call('PERSIST', key(job_id, 'shards'))
end
for shard = first, first + staged.waiting - 1 do redis.call('RPUSH', key(job_id, 'ready'), shard) end
redis.call('SET', key(job_id, 'done'), recovery.done)
redis.call('SET', key(job_id, 'flagged'), recovery.flagged)
for image, failure in pairs(recovery.failures) do redis.call('HSET', key(job_id, 'failures'), image, failure) end
local done_count = redis.call('BITCOUNT', key(job_id, 'done'))
local failed_count = redis.call('HLEN', key(job_id, 'failures'))
begin_job(job_id, new, staged.word)
redis.call('HSET', key(job_id), 'state', 'sealed', 'run', 2, 'total', total, 'shards', staged.shards,
  'left', total - done_count - failed_count, 'done', done_count, 'failed', failed_count,
  'flagged', redis.call('BITCOUNT', key(job_id, 'flagged')), 'cursor', total + held, 'held', held,
  'first_shard', first)

local number_in_id = tonumber(string.match(job_id, '%d+$'))
local last = tonumber(redis.call('HGET', NUMBERS, new.name) or '0') or 0
redis.call('HSET', NUMBERS, new.name, math.max(last, number_in_id))
check_bound(job_id)
settle(job_id)
return 'recovered'
