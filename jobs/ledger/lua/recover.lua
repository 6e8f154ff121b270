-- Puts back a job that Redis lost, in one step: half a recovery is no job. It is sealed, and in another run than
-- the one that was lost. Its shards were staged under its incarnation, in place of its id.
-- ARGV: job, incarnation, name, output key, digest, priority, spec, total, held, done bits, flagged bits, shards,
-- first of those that wait, how many wait, count of fields and values, the job's fields and values …, then
-- index, failure JSON …
-- Returns 'recovered', 'known' (nothing is lost), 'expired' (what was staged), or 'taken by JOB'
local id, incarnation, name, output, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
if redis.call('EXISTS', key(id)) == 1 then return 'known' end
local owner = redis.call('GET', output)
if owner and redis.call('EXISTS', key(owner)) == 1 then return 'taken by ' .. owner end
if redis.call('HLEN', key(incarnation, 'shards')) ~= tonumber(ARGV[12]) then return 'expired' end

local now, first, waiting = clock(), tonumber(ARGV[13]), tonumber(ARGV[14])
local own_fields, failures = 16, 16 + tonumber(ARGV[15])
for _, part in ipairs(JOB_PARTS) do redis.call('DEL', key(id, part)) end
if redis.call('EXISTS', key(incarnation, 'shards')) == 1 then
  redis.call('RENAME', key(incarnation, 'shards'), key(id, 'shards'))
  redis.call('PERSIST', key(id, 'shards'))
end
for shard = first, first + waiting - 1 do redis.call('RPUSH', key(id, 'ready'), shard) end
redis.call('SET', key(id, 'spec'), ARGV[7])
redis.call('SET', key(id, 'done'), ARGV[10])
redis.call('SET', key(id, 'flagged'), ARGV[11])
for i = failures, #ARGV, 2 do redis.call('HSET', key(id, 'failures'), ARGV[i], ARGV[i + 1]) end
local total, done = tonumber(ARGV[8]), redis.call('BITCOUNT', key(id, 'done'))
local failed = redis.call('HLEN', key(id, 'failures'))
begin_job(id, incarnation, ARGV[5], output, priority, now)
redis.call('HSET', key(id), 'state', 'sealed', 'run', 2, 'total', total, 'shards', ARGV[12],
  'left', total - done - failed, 'done', done, 'failed', failed,
  'flagged', redis.call('BITCOUNT', key(id, 'flagged')), 'cursor', total + tonumber(ARGV[9]), 'held', ARGV[9],
  'first_shard', first)
for i = own_fields, failures - 1, 2 do redis.call('HSET', key(id), ARGV[i], ARGV[i + 1]) end

local number = tonumber(string.match(id, '%d+$'))
local last = tonumber(redis.call('HGET', PREFIX .. 'numbers', name) or '0')
redis.call('HSET', PREFIX .. 'numbers', name, math.max(last, number))
check_bound(id)
settle(id)
return 'recovered'
