-- What every script begins with, before prelude.lua: keys, the clock, and how damaged keys are met. A key may be lost
-- (evicted, deleted by hand), be of another kind, or hold what nobody can read. No job's damage may stop the others:
-- what cannot be read counts as absent, and a key of another kind is dropped (`mend_job`).

local function key(job_id, part)
  if part then return JOB .. job_id .. ':' .. part end
  return JOB .. job_id
end

-- Milliseconds, with microseconds as their fraction, by Redis' own clock: workers' clocks may be wrong.
local function precise_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

local function clock()
  return math.floor(precise_clock())
end

-- A field of a job's hash as a number; 0 if it is absent or none.
local function number(job_id, field)
  return tonumber(redis.call('HGET', key(job_id), field) or '0') or 0
end

-- How a job ends early: 'cancelled', 'stopped', or '' if it does not.
local function ending_of(job_id)
  return redis.call('HGET', key(job_id), 'ending') or ''
end

-- Lets the script write although Redis is full, for what comes to an end or gives work back: a full Redis refuses
-- commands that may need memory only until the script has changed something. This changes nothing.
local function even_when_full()
  redis.call('PERSIST', LEASES)
end

-- Redis' answer that it is full, as long as it is; nothing is written. Asked before `even_when_full`.
local function when_full()
  local answer = redis.pcall('LPUSHX', NOTHING, '')
  return type(answer) == 'table' and answer.err and answer or nil
end

-- The table that a text is the JSON of; nil for any other text.
local function decoded(text)
  if type(text) ~= 'string' then return nil end
  local read, value = pcall(cjson.decode, text)
  return read and type(value) == 'table' and value or nil
end

-- Those of a list that may be indices of images: a bit at one key of Redis has such a number.
local function images_of(list)
  local images = {}
  for _, image in ipairs(type(list) == 'table' and list or {}) do
    if type(image) == 'number' and image >= 0 and image < 2^32 and image % 1 == 0 then images[#images + 1] = image end
  end
  return images
end

-- The job and the shard of a member of LEASES.
local function split_member(member)
  return string.match(member, '^(.*)/([^/]*)$')
end

-- The lease of a shard; nil if there is none that can be read.
local function lease_of(job_id, shard)
  local lease = decoded(redis.call('HGET', key(job_id, 'leased'), shard))
  if not lease or type(lease.a) ~= 'string' or type(lease.w) ~= 'string' then return nil end
  lease.rows = lease.rows ~= nil and images_of(lease.rows) or nil
  lease.alone = images_of({lease.alone})[1]
  return lease
end

local function expiries_of(job_id, shard)
  local expiries = decoded(redis.call('HGET', key(job_id, 'expiries'), shard)) or {}
  return {count = tonumber(expiries.count) or 0, images = images_of(expiries.images)}
end

-- How often in a run all of a job's shards are looked at again, because a key was lost.
local REQUEUES = 10
-- The command that reads a key of each kind, and fails for one of another.
local LENGTH = {string = 'STRLEN', hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD', stream = 'XLEN'}
local dropped = {}

-- Drops a key that is of another kind than `kind`. By EXPIRE, since a worker may not DEL a job's spec and shards.
local function drop_foreign(kind, name)
  local answer = redis.pcall(LENGTH[kind], name)
  if type(answer) == 'table' and string.find(answer.err or '', 'WRONGTYPE', 1, true) then
    redis.pcall('EXPIRE', name, 0)
    dropped[#dropped + 1] = name
  end
end

-- Drops those of a job's keys, and fields of its hash, that hold what they cannot hold.
local function mend_job(job_id)
  drop_foreign('hash', key(job_id))
  for part, kind in pairs(KINDS) do drop_foreign(kind, key(job_id, part)) end
  local counts = redis.call('HMGET', key(job_id), unpack(COUNTS))
  for i, field in ipairs(COUNTS) do
    if counts[i] and not string.match(counts[i], '^-?%d+$') then
      redis.call('HSET', key(job_id), field, 0)
      dropped[#dropped + 1] = key(job_id) .. ' ' .. field
    end
  end
end

-- The same for the keys that all jobs share. Of some of them the user of this script may know nothing.
local function mend_shared()
  for name, kind in pairs(SHARED) do drop_foreign(kind, name) end
end

-- Does a step for one job. If the job's keys are damaged, they are mended and the step is tried once more: if that
-- fails, too, it is left, so that the other jobs go on.
local function guarded(job_id, step)
  local done, raised = pcall(step)
  if done then return end
  local message = type(raised) == 'table' and raised.err or tostring(raised)
  for _, words in ipairs(DAMAGE) do
    if string.find(message, words, 1, true) then
      mend_job(job_id)
      return pcall(step)
    end
  end
  error(raised)
end

-- Makes the counts of a job that has nothing left to render agree with its bits and failures, if one of these was lost.
-- None of them is believed then: `requeue` has all of it looked at again. Returns how many images are left, and whether
-- something was lost
local function recount(job_id)
  local done, failed, left = number(job_id, 'done'), number(job_id, 'failed'), number(job_id, 'left')
  if redis.call('BITCOUNT', key(job_id, 'done')) == done and redis.call('HLEN', key(job_id, 'failures')) == failed
      and redis.call('BITCOUNT', key(job_id, 'flagged')) == number(job_id, 'flagged')
      and number(job_id, 'total') == done + failed + left then return left, false end
  redis.call('DEL', key(job_id, 'done'), key(job_id, 'failures'), key(job_id, 'flagged'))
  redis.call('HSET', key(job_id), 'done', 0, 'failed', 0, 'flagged', 0, 'left', number(job_id, 'total'))
  return number(job_id, 'total'), true
end

-- Lets all shards of a job's run wait again, because what waited or what is done was lost: a worker that finds a shard
-- in the output only records it. Not more than REQUEUES times a run, and not again if a pass recorded nothing: images
-- of an earlier run's shards, whose bits were lost, are only found by `imagemill retry`. Returns whether there are any
local function requeue(job_id, left, lost)
  local first, shards = number(job_id, 'first_shard'), {}
  local before, claims = number(job_id, 'requeued_left'), number(job_id, 'epoch')
  local passed = before > 0 and claims > number(job_id, 'requeued_epoch')
  if passed and not lost and left >= before then return false end
  local times = math.max(number(job_id, 'requeued'), number(job_id, 'run') * REQUEUES)
  if times >= (number(job_id, 'run') + 1) * REQUEUES then return false end
  redis.call('HSET', key(job_id), 'requeued', times + 1, 'waiting_since', clock(), 'requeued_left', left,
    'requeued_epoch', claims)
  for _, shard in ipairs(redis.call('HKEYS', key(job_id, 'shards'))) do
    local readable = redis.call('HEXISTS', key(job_id, 'broken'), shard) == 0
    if readable and (tonumber(shard) or -1) >= first then shards[#shards + 1] = tonumber(shard) end
  end
  table.sort(shards)
  for _, shard in ipairs(shards) do redis.call('RPUSH', key(job_id, 'ready'), shard) end
  return #shards > 0
end

-- Takes the next shard that waits; nil if there is none.
local function next_shard(job_id)
  local shard
  repeat shard = redis.call('LPOP', key(job_id, 'ready')) until not shard or string.match(shard, '^%d+$')
  return shard or nil
end

-- The key that says which job writes to the job's output; nil if none can be read. Workers may write a job's hash: it
-- names no other key to a user that may do more.
local function output_key_of(job_id)
  local name = redis.call('HGET', key(job_id), 'output_key') or ''
  return string.sub(name, 1, #OUTPUT) == OUTPUT and name or nil
end

-- Whether a job's output is nobody else's: what its key has for an owner is the job itself, no job, or nothing.
local function may_own(job_id, output_key)
  drop_foreign('string', output_key)
  local owner = redis.call('GET', output_key)
  return not owner or owner == job_id or redis.call('EXISTS', key(owner)) == 0
end

-- Lets other jobs write to the job's output.
local function free_output(job_id)
  local output_key = output_key_of(job_id)
  if output_key and may_own(job_id, output_key) then redis.call('DEL', output_key) end
end

-- Puts an unfinished job back into what all jobs share, as far as it was lost there.
local function relist(job_id)
  local job, output_key = redis.call('HMGET', key(job_id), 'priority', 'created'), output_key_of(job_id)
  redis.call('ZADD', ACTIVE, 'NX', tonumber(job[1] or '') or 0, job_id)
  redis.call('ZADD', JOBS, 'NX', tonumber(job[2] or '') or clock(), job_id)
  if output_key and may_own(job_id, output_key) then redis.call('SET', output_key, job_id) end
  for _, shard in ipairs(redis.call('HKEYS', key(job_id, 'leased'))) do
    local lease = lease_of(job_id, shard)
    redis.call('ZADD', LEASES, 'NX', lease and clock() + (tonumber(lease.l) or 60000) or 0, job_id .. '/' .. shard)
  end
end

-- Lets a job begin to finish: prelude.lua.
local settle

-- Looks at a job, any one: what all jobs share, or its list of what waits, may have lost it. Each comes back by and by,
-- and the name of one whose time is over goes.
local function relist_one()
  for _, list in ipairs({JOBS, ACTIVE}) do
    local job_id = redis.call('ZRANDMEMBER', list)
    if job_id then
      guarded(job_id, function()
        local job = redis.call('HMGET', key(job_id), 'state', 'incarnation')
        if job[2] and (job[1] == 'open' or job[1] == 'sealed' or job[1] == 'finishing') then
          relist(job_id)
          settle(job_id)
        elseif redis.call('EXISTS', key(job_id)) == 0 and not redis.call('ZSCORE', ACTIVE, job_id) then
          redis.call('ZREM', JOBS, job_id)
        end
      end)
    end
  end
end

-- Removes whatever is left of a job. Its output keeps what was rendered.
local function drop_job(job_id)
  mend_job(job_id)
  for _, shard in ipairs(redis.call('HKEYS', key(job_id, 'leased'))) do
    redis.call('ZREM', LEASES, job_id .. '/' .. shard)
  end
  free_output(job_id)
  redis.call('ZREM', ACTIVE, job_id)
  redis.call('ZREM', JOBS, job_id)
  for _, part in ipairs(JOB_PARTS) do redis.call('EXPIRE', key(job_id, part), 0) end
  redis.call('DEL', key(job_id))
end

-- The unfinished job that owns an output. An owner that is gone owns nothing: what is left of it is dropped.
local function owner_of(output_key)
  drop_foreign('string', output_key)
  local owner = redis.call('GET', output_key)
  if not owner then return nil end
  drop_foreign('hash', key(owner))
  if redis.call('EXISTS', key(owner)) == 0 then
    drop_job(owner)
  elseif redis.call('HGET', key(owner), 'state') ~= 'finished' then
    return owner
  end
  redis.call('DEL', output_key)
  return nil
end
