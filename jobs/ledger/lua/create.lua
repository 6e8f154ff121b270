-- Makes a job, or says which active one owns the output. Numbers continue from the larger of Redis' and
-- the output folder's.
-- ARGV: name, least number, output key, digest, incarnation, priority, spec, then the job's fields and values
-- Returns {'created'|'attached'|'ending'|'taken', job id}
local name, floor, output, digest = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local owner = redis.call('GET', output)
if owner and redis.call('EXISTS', key(owner)) == 1 then
  if redis.call('HGET', key(owner), 'digest') ~= digest then return {'taken', owner} end
  return {redis.call('HGET', key(owner), 'ending') == '' and 'attached' or 'ending', owner}
end
local last = tonumber(redis.call('HGET', PREFIX .. 'numbers', name) or '0')
local next = math.max(last + 1, floor)
redis.call('HSET', PREFIX .. 'numbers', name, next)
local id, now = name .. '-' .. next, clock()
redis.call('SET', key(id, 'spec'), ARGV[7])
begin_job(id, ARGV[5], digest, output, ARGV[6], now)
for i = 8, #ARGV, 2 do redis.call('HSET', key(id), ARGV[i], ARGV[i + 1]) end
return {'created', id}
