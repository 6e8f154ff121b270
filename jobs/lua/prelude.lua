-- Shared by every script of the ledger: key names, the clock, fencing, and the moves that several operations
-- make. Key names: jobs/redis_keys.py.

local PREFIX = 'imagemill:'
local JOBS, ACTIVE, LEASES, ROWS = PREFIX .. 'jobs', PREFIX .. 'active', PREFIX .. 'leases', PREFIX .. 'rows'
local JOB_PARTS = {
  'spec', 'shards', 'ready', 'leased', 'done', 'failures', 'flagged', 'refusals', 'workers', 'rows'
}

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

-- A job whose last shard is stored, or that is ending early, starts to finish once nothing is left.
local function settle(id)
  local job = redis.call('HMGET', key(id), 'state', 'ending')
  local state, ending = job[1], job[2]
  if state == 'sealed' or (state == 'open' and ending and ending ~= '') then
    if redis.call('LLEN', key(id, 'ready')) == 0 and redis.call('HLEN', key(id, 'leased')) == 0 then
      local outcome = ending
      if outcome == '' then outcome = number(id, 'failed') > 0 and 'failures' or 'complete' end
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

-- Puts back every shard whose lease has run out; returns how many.
local function reap(now)
  local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 1000)
  for _, member in ipairs(expired) do
    local id, shard = string.match(member, '^(.*)/([^/]*)$')
    if redis.call('EXISTS', key(id)) == 1 then
      put_back(id, shard, now)
    else
      redis.call('ZREM', LEASES, member)
    end
  end
  return #expired
end

-- Ends a job early ('cancelled', 'stopped'): what waits is dropped, what is leased runs out.
local function end_early(id, ending, reason)
  redis.call('HSET', key(id), 'ending', ending, 'reason', reason, 'paused', 0)
  redis.call('DEL', key(id, 'ready'))
  settle(id)
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

-- Marks images failed: pairs of index and JSON.
local function mark_failed(id, failures)
  local new = 0
  for i = 1, #failures, 2 do
    if redis.call('GETBIT', key(id, 'done'), failures[i]) == 0 then
      new = new + redis.call('HSETNX', key(id, 'failures'), failures[i], failures[i + 1])
    end
  end
  if new == 0 then return end
  redis.call('HINCRBY', key(id), 'failed', new)
  redis.call('HINCRBY', key(id), 'left', -new)
  check_bound(id)
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
      found[#found + 1] = {kind = 'finish', id = id, pipeline = job[5]}
    elseif (job[1] == 'open' or job[1] == 'sealed') and job[2] ~= '1' and job[3] == '' and not refused
        and (#models == 0 or allowed[job[4]]) and redis.call('LLEN', key(id, 'ready')) > 0 then
      found[#found + 1] = {kind = 'shard', id = id, pipeline = job[5], priority = tonumber(job[6]),
        waiting_since = tonumber(job[7]), last_claim = tonumber(job[8]),
        leased = redis.call('HLEN', key(id, 'leased'))}
    end
  end
  return found
end
