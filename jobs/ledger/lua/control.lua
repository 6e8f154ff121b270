-- Pauses, resumes or cancels a job. ARGV: job, action, reason. Returns 'ok', 'gone' or the state that forbids it
local id, action = ARGV[1], ARGV[2]
local job = redis.call('HMGET', key(id), 'state', 'ending')
if not job[1] then return 'gone' end
if job[1] == 'finished' then return job[1] end
if action == 'resume' then
  -- Also of a job that is finishing or ending: a worker that could not write its report refused that too.
  redis.call('HSET', key(id), 'paused', 0, 'waiting_since', clock())
  redis.call('DEL', key(id, 'refusals'))
  return 'ok'
end
if job[1] == 'finishing' then return job[1] end
if job[2] ~= '' then return job[2] end
if action == 'cancel' then
  end_early(id, 'cancelled', ARGV[3])
elseif action == 'pause' then
  redis.call('HSET', key(id), 'paused', 1)
end
return 'ok'
