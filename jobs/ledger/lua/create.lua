-- Makes a job, or returns the active one that owns the output. Its number continues from the larger of Redis' last
-- and the output folder's (`least_number` is one more than that).
-- Returns {'created'|'attached'|'ending'|'taken', job id}
local owner = redis.call('GET', new.output_key)
if owner and redis.call('EXISTS', key(owner)) == 1 then
  if redis.call('HGET', key(owner), 'digest') ~= new.digest then return {'taken', owner} end
  return {redis.call('HGET', key(owner), 'ending') == '' and 'attached' or 'ending', owner}
end
local last = tonumber(redis.call('HGET', NUMBERS, new.name) or '0')
local next_number = math.max(last + 1, least_number)
redis.call('HSET', NUMBERS, new.name, next_number)
local job_id = new.name .. '-' .. next_number
begin_job(job_id, new, incarnation)
return {'created', job_id}
