-- Pauses, resumes or cancels a job. Returns 'ok', 'gone' or the state that forbids it
local job = redis.call('HMGET', key(job_id), 'state', 'ending')
local state, ending = job[1], job[2]
if not state then return 'gone' end
if state == 'finished' then return state end
if action == 'resume' then
  -- A job that is finishing or ending may be resumed too: a worker that could not write its report refused it.
  redis.call('HSET', key(job_id), 'paused', 0, 'waiting_since', clock())
  redis.call('DEL', key(job_id, 'refusals'))
  return 'ok'
end
if state == 'finishing' then return state end
if ending ~= '' then return ending end
if action == 'cancel' then
  end_early(job_id, 'cancelled', reason)
elseif action == 'pause' then
  redis.call('HSET', key(job_id), 'paused', 1)
end
return 'ok'
