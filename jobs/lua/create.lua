-- Makes a job, or says which active one owns the output. Numbers continue from the larger of Redis' and
-- the output folder's.
-- ARGV: name, least number, output key, digest, incarnation, priority, spec, then the job's fields and values
-- Returns {'created'|'attached'|'taken', job id}
local name, floor, output, digest = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local owner = redis.call('GET', output)
if owner and redis.call('EXISTS', key(owner)) == 1 then
  if redis.call('HGET', key(owner), 'digest') == digest and redis.call('HGET', key(owner), 'ending') == '' then
    return {'attached', owner}
  end
  return {'taken', owner}
end
local last = tonumber(redis.call('HGET', PREFIX .. 'numbers', name) or '0')
local next = math.max(last + 1, floor)
redis.call('HSET', PREFIX .. 'numbers', name, next)
local id, now = name .. '-' .. next, clock()
redis.call('SET', output, id)
redis.call('SET', key(id, 'spec'), ARGV[7])
redis.call('HSET', key(id), 'incarnation', ARGV[5], 'digest', digest, 'output_key', output, 'priority', ARGV[6],
  'state', 'open', 'ending', '', 'reason', '', 'paused', 0, 'run', 1, 'total', 0, 'shards', 0, 'left', 0,
  'done', 0, 'failed', 0, 'flagged', 0, 'cursor', 0, 'held', 0, 'first_shard', -1, 'epoch', 0, 'created', now, 'started', 0, 'ended', 0, 'finished', 0, 'last_image', 0,
  'waiting_since', now, 'last_claim', 0, 'window_at', 0, 'window_count', 0, 'window_rate', 0)
for i = 8, #ARGV, 2 do redis.call('HSET', key(id), ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', JOBS, now, id)
redis.call('ZADD', ACTIVE, ARGV[6], id)
return {'created', id}
