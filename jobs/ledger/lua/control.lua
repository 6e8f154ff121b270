-- Pauses, resumes or cancels a job, and puts back what Redis lost of it. `readable`: whether the caller can read the
-- job. Returns 'ok', 'ended' (at once: no worker will write its report), 'dropped' (it could not be read; nothing is
-- left of it), 'gone', 'lost' (it cannot be read, and may only be cancelled), or the state that forbids the action
even_when_full()
mend_shared()
mend_job(job_id)
local there = redis.call('ZSCORE', ACTIVE, job_id) or redis.call('EXISTS', key(job_id)) == 1
for _, part in ipairs(JOB_PARTS) do there = there or redis.call('EXISTS', key(job_id, part)) == 1 end
if not there then return 'gone' end

local job = redis.call('HMGET', key(job_id), 'state', 'incarnation')
local state, known = job[1], {open = true, sealed = true, finishing = true, finished = true}
local sound = job[2] and known[state] and (readable or state ~= 'finished')
if not sound and action == 'cancel' then
  drop_job(job_id)
  return 'dropped'
end
if not job[2] or not known[state] then return 'lost' end
if state == 'finished' then return state end

relist(job_id)
reap(clock())
settle(job_id)
if action == 'resume' then
  -- A job that is finishing or ending may be resumed too: a worker that could not write its report refused it.
  redis.call('HSET', key(job_id), 'paused', 0, 'waiting_since', clock())
  redis.call('DEL', key(job_id, 'refusals'))
  keep_place(job_id)
  return 'ok'
end

-- Whether no worker will finish the job: it cannot be read, all that live refuse it now, or there is none.
local function forsaken()
  if redis.call('HGET', key(job_id), 'state') ~= 'finishing' or redis.call('HLEN', key(job_id, 'leased')) > 0 then
    return false
  end
  if not readable then return true end
  local now = clock()
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, now / 1000 - WORKER_TTL, '+inf')) do
    if not refuses(job_id, worker, now) then return false end
  end
  return true
end

state = redis.call('HGET', key(job_id), 'state')
local ending = ending_of(job_id)
if action == 'cancel' and state == 'finishing' and forsaken() then
  conclude(job_id, 0)
  return 'ended'
end
if state == 'finishing' then return state end
if ending ~= '' then return ending end
if action == 'pause' then
  redis.call('HSET', key(job_id), 'paused', 1)
  keep_place(job_id)
  return 'ok'
end
end_early(job_id, 'cancelled', reason)
if not readable and forsaken() then
  conclude(job_id, 0)
  return 'ended'
end
return 'ok'
