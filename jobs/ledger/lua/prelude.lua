-- Shared by every script of the ledger: key names, the clock, fencing, and the moves that several operations
-- make. Key names: jobs/ledger/redis_keys.py.

local PREFIX = 'imagemill:'
local JOBS, ACTIVE, LEASES, SLOTS = PREFIX .. 'jobs', PREFIX .. 'active', PREFIX .. 'leases', PREFIX .. 'rows'
local REAPED = PREFIX .. 'reaped'
local JOB_PARTS = {
  'spec', 'shards', 'ready', 'leased', 'done', 'failures', 'flagged', 'refusals', 'workers', 'rows', 'expiries',
  'deaths', 'broken'
}

-- How often in a row a shard's lease runs out, without a new picture, before: what was in the slots each time is
-- rendered alone; the whole shard is, when nothing is known to have been there; the job is stopped.
local SUSPECT_AFTER, SUSPECT_ALL_AFTER, STOP_AFTER = 3, 10, 20
-- Workers that may die of one image that they render alone.
local MOST_DEATHS = 2
-- Milliseconds that leases of one worker may run out after each other and be one death: a renewal is for all, but
-- what was claimed since the last has a time of its own.
local ONE_DEATH = 1500
-- Milliseconds between two looks at the leases that are more than a worker, or whoever follows a job, leaves
-- between them; and what such a gap costs a lease all the same, so that none stands for ever where all are slow.
local UNWATCHED, A_LOOK = 3000, 1000

local function key(id, part)
  if part then return PREFIX .. 'job:' .. id .. ':' .. part end
  return PREFIX .. 'job:' .. id
end

-- Milliseconds by Redis' own clock, to the microsecond: a worker's clock is never believed.
local function precise_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

local function clock()
  return math.floor(precise_clock())
end

local function number(id, field)
  return tonumber(redis.call('HGET', key(id), field) or '0')
end

-- The job that `incarnation` was given to still stands (it was not wiped and made anew).
local function is_current(id, incarnation)
  return redis.call('HGET', key(id), 'incarnation') == incarnation
end

-- The attempt still holds the shard's lease.
local function holds(id, incarnation, shard, attempt)
  if not is_current(id, incarnation) then return false end
  local lease = redis.call('HGET', key(id, 'leased'), shard)
  return lease and cjson.decode(lease).a == attempt
end

local function drop_lease(id, shard)
  redis.call('HDEL', key(id, 'leased'), shard)
  redis.call('ZREM', LEASES, id .. '/' .. shard)
end

-- The fields that every job begins with.
local function begin_job(id, incarnation, digest, output, priority, now)
  redis.call('HSET', key(id), 'incarnation', incarnation, 'digest', digest, 'output_key', output,
    'priority', priority, 'state', 'open', 'ending', '', 'reason', '', 'paused', 0, 'run', 1, 'total', 0,
    'shards', 0, 'left', 0, 'done', 0, 'failed', 0, 'flagged', 0, 'cursor', 0, 'held', 0, 'first_shard', -1,
    'epoch', 0, 'created', now, 'started', 0, 'ended', 0, 'finished', 0, 'last_image', 0,
    'waiting_since', now, 'last_claim', 0, 'window_at', 0, 'window_count', 0, 'window_rate', 0)
  redis.call('SET', output, id)
  redis.call('ZADD', JOBS, now, id)
  redis.call('ZADD', ACTIVE, priority, id)
end

-- A job whose last shard is stored, or that is ending early, starts to finish once nothing is left.
local function settle(id)
  local job = redis.call('HMGET', key(id), 'state', 'ending')
  local state, ending = job[1], job[2]
  if state == 'sealed' or (state == 'open' and ending and ending ~= '') then
    if redis.call('LLEN', key(id, 'ready')) == 0 and redis.call('HLEN', key(id, 'leased')) == 0 then
      local outcome = ending
      if outcome == '' then
        local lacking = number(id, 'failed') > 0 or redis.call('EXISTS', key(id, 'broken')) == 1
        outcome = lacking and 'failures' or 'complete'
      end
      redis.call('HSET', key(id), 'state', 'finishing', 'ended', clock(), 'outcome', outcome)
    end
  end
end

-- A shard whose attempt ended without a result waits again, first in line, unless its job is ending.
local function put_back(id, shard, now)
  drop_lease(id, shard)
  if shard == 'finish' then return end
  local ending = redis.call('HGET', key(id), 'ending')
  if ending == '' then
    if redis.call('LPUSH', key(id, 'ready'), shard) == 1 then
      redis.call('HSET', key(id), 'waiting_since', now)
    end
  end
  settle(id)
end

-- Ends a job early ('cancelled', 'stopped'): what waits is dropped, what is leased runs out.
local function end_early(id, ending, reason)
  redis.call('HSET', key(id), 'ending', ending, 'reason', reason, 'paused', 0)
  redis.call('DEL', key(id, 'ready'))
  settle(id)
end

-- The image is neither done nor failed.
local function is_open(id, index)
  return redis.call('GETBIT', key(id, 'done'), index) == 0
    and redis.call('HEXISTS', key(id, 'failures'), index) == 0
end

local function is_alone(id, lease)
  return lease.alone and is_open(id, lease.alone)
end

local function expiries_of(id, shard)
  local told = redis.call('HGET', key(id, 'expiries'), shard)
  return told and cjson.decode(told) or {count = 0, images = {}}
end

-- A lease ran out: its worker died, or was cut off. An image that was alone in the slots is charged with it; else
-- what was in them is kept, to be suspected when this goes on.
local function blame(id, shard, lease)
  if is_alone(id, lease) then
    redis.call('HINCRBY', key(id, 'deaths'), lease.alone, 1)
    return
  end
  local expiries = expiries_of(id, shard)
  expiries.count = expiries.count + 1
  local known = {}
  for _, index in ipairs(expiries.images) do known[index] = true end
  for _, index in ipairs(lease.rows or {}) do
    if not known[index] then expiries.images[#expiries.images + 1] = index end
  end
  redis.call('HSET', key(id, 'expiries'), shard, cjson.encode(expiries))
  if shard ~= 'finish' and expiries.count >= STOP_AFTER and redis.call('HGET', key(id), 'ending') == '' then
    end_early(id, 'stopped', 'the lease of shard ' .. shard .. ' ran out ' .. expiries.count .. ' times and no '
      .. 'picture came of it: its workers die or are cut off before they begin; see their logs')
  end
end

-- Time in which nobody looked after leases does not count: Redis was away, or everybody was.
local function forgive(now)
  local gap = now - tonumber(redis.call('GET', REAPED) or now)
  redis.call('SET', REAPED, now)
  if gap <= UNWATCHED then return end
  for _, member in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    redis.call('ZINCRBY', LEASES, gap - A_LOOK, member)
  end
end

-- Puts back every shard whose lease has run out; returns how many. A shard with nothing in the slots is not counted
-- while another of its worker had images there: its lease, which may run out a little later, is excused.
local function reap(now)
  forgive(now)
  local due = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now + ONE_DEATH, 'WITHSCORES')
  local leases, guilty = {}, {}
  for i = 1, #due, 2 do
    local id, shard = string.match(due[i], '^(.*)/([^/]*)$')
    local told = redis.call('HGET', key(id, 'leased'), shard)
    local lease = told and cjson.decode(told) or {}
    local one = {id = id, shard = shard, lease = lease, expired = tonumber(due[i + 1]) <= now}
    one.innocent = shard ~= 'finish' and not is_alone(id, lease) and #(lease.rows or {}) == 0
    if lease.w and not one.innocent then guilty[lease.w] = guilty[lease.w] or one.expired end
    leases[#leases + 1] = one
  end
  local count = 0
  for _, one in ipairs(leases) do
    local excused = one.innocent and guilty[one.lease.w] ~= nil
    if one.expired then
      if one.lease.w and not (excused or one.lease.excused) then blame(one.id, one.shard, one.lease) end
      put_back(one.id, one.shard, now)
      count = count + 1
    elseif excused and guilty[one.lease.w] then
      one.lease.excused = true
      redis.call('HSET', key(one.id, 'leased'), one.shard, cjson.encode(one.lease))
    end
  end
  return count
end

-- Stops a job at its bound of pictures that failed or are doubted.
local function check_bound(id)
  local bound, bad = number(id, 'max_failures'), number(id, 'failed') + number(id, 'flagged')
  if bound > 0 and bad >= bound and redis.call('HGET', key(id), 'ending') == '' then
    end_early(id, 'stopped', bad .. ' images failed or are flagged, max_failures is ' .. bound)
  end
end

-- Marks images done, counting only bits that turn from 0 to 1; a failure that was rendered after all is
-- no failure any more. An index with a '!' behind it is of a picture that is kept but doubted. Returns how
-- many bits turned.
local function mark_done(id, indices, now)
  local turned, mended = 0, 0
  for _, mark in ipairs(indices) do
    local index = string.match(mark, '%d+')
    if index ~= mark and redis.call('SETBIT', key(id, 'flagged'), index, 1) == 0 then
      redis.call('HINCRBY', key(id), 'flagged', 1)
    end
    if redis.call('SETBIT', key(id, 'done'), index, 1) == 0 then
      turned = turned + 1
      mended = mended + redis.call('HDEL', key(id, 'failures'), index)
    end
  end
  if turned == 0 then return 0 end
  redis.call('HINCRBY', key(id), 'done', turned)
  redis.call('HINCRBY', key(id), 'failed', 0 - mended)
  redis.call('HINCRBY', key(id), 'left', mended - turned)
  redis.call('HSET', key(id), 'last_image', now)
  local window_at = number(id, 'window_at')
  if window_at == 0 then
    redis.call('HSET', key(id), 'window_at', number(id, 'started'), 'window_count', turned)
  elseif now - window_at < 30000 then
    redis.call('HINCRBY', key(id), 'window_count', turned)
  else
    local rate = (number(id, 'window_count') + turned) * 1000 / (now - window_at)
    redis.call('HSET', key(id), 'window_at', now, 'window_count', 0, 'window_rate', tostring(rate))
  end
  check_bound(id)
  return turned
end

-- An image that was counted as done is not after all.
local function take_back(id, index)
  if redis.call('SETBIT', key(id, 'done'), index, 0) == 0 then return end
  redis.call('HINCRBY', key(id), 'done', -1)
  redis.call('HINCRBY', key(id), 'left', 1)
  redis.call('HINCRBY', key(id), 'flagged', 0 - redis.call('SETBIT', key(id, 'flagged'), index, 0))
end

-- Marks images failed: pairs of index and JSON. Returns how many were not before.
local function mark_failed(id, failures)
  local new = 0
  for i = 1, #failures, 2 do
    if redis.call('GETBIT', key(id, 'done'), failures[i]) == 0 then
      new = new + redis.call('HSETNX', key(id, 'failures'), failures[i], failures[i + 1])
    end
  end
  if new == 0 then return 0 end
  redis.call('HINCRBY', key(id), 'failed', new)
  redis.call('HINCRBY', key(id), 'left', -new)
  check_bound(id)
  return new
end

-- The worker said lately that it does not take the job.
local function refuses(id, worker, now)
  local refusal = redis.call('HGET', key(id, 'refusals'), worker)
  return refusal and cjson.decode(refusal)['until'] > now
end

-- What a worker may claim now: jobs with a shard that waits (kind 'shard') or that want finishing.
local function claimable(worker, models)
  local allowed = {}
  for _, model in ipairs(models) do allowed[model] = true end
  local found, now = {}, clock()
  for _, id in ipairs(redis.call('ZRANGE', ACTIVE, 0, -1)) do
    local job = redis.call('HMGET', key(id), 'state', 'paused', 'ending', 'model', 'pipeline', 'priority',
      'waiting_since', 'last_claim')
    local refused = refuses(id, worker, now)
    if job[1] == 'finishing' and not refused and redis.call('HLEN', key(id, 'leased')) == 0 then
      local deaths = expiries_of(id, 'finish').count
      found[#found + 1] = {kind = 'finish', id = id, pipeline = job[5], doubted = deaths >= SUSPECT_AFTER}
    elseif (job[1] == 'open' or job[1] == 'sealed') and job[2] ~= '1' and job[3] == '' and not refused
        and (#models == 0 or allowed[job[4]]) and redis.call('LLEN', key(id, 'ready')) > 0 then
      found[#found + 1] = {kind = 'shard', id = id, pipeline = job[5], priority = tonumber(job[6]),
        waiting_since = tonumber(job[7]), last_claim = tonumber(job[8]),
        leased = redis.call('HLEN', key(id, 'leased'))}
    end
  end
  return found
end
