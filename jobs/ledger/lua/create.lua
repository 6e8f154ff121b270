-- Makes a job, or returns the active one that owns the output. Its number continues from the larger of Redis' last
-- and the output folder's (`least_number` is one more than that).
-- Returns {'created'|'attached'|'ending'|'taken', job id}
-- A user without this key, whom an ACL file of an earlier version has, fails before anything is written.
redis.call('EXISTS', CLAIMABLE)
mend_shared()
local owner = owner_of(new.output_key)
if owner then
  if redis.call('HGET', key(owner), 'digest') ~= new.digest then return {'taken', owner} end
  if ending_of(owner) ~= '' then return {'ending', owner} end
  relist(owner)
  return {'attached', owner}
end
local last = tonumber(redis.call('HGET', NUMBERS, new.name) or '0') or 0
local next_number = math.max(last + 1, least_number)
-- The last number may be lost.
while redis.call('EXISTS', key(new.name .. '-' .. next_number)) == 1 do next_number = next_number + 1 end
redis.call('HSET', NUMBERS, new.name, next_number)
local job_id = new.name .. '-' .. next_number
begin_job(job_id, new, incarnation)
return {'created', job_id}
