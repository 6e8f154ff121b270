-- Shared by every script of the ledger: its bounds, fencing, and the steps that several operations take.
-- jobs/ledger/lua_functions.py puts the key names before it, as redis_keys.py has them (PREFIX, LEASES, JOB_PARTS …),
-- and damage.lua; and each script's arguments after it, by the names of their Python declaration.

-- How often in a row a shard's lease runs out, without a new picture, before: what was in the slots each time is
-- rendered alone; the whole shard is, if nothing is known to have been in them; the job is stopped.
local SUSPECT_AFTER, SUSPECT_ALL_AFTER, STOP_AFTER = 3, 10, 20
-- How many workers may die of one image that they render alone.
local MOST_DEATHS = 2
-- Milliseconds between leases of one worker that run out because of one death: a renewal covers all of them, but a
-- later claim has a time of its own.
local ONE_DEATH = 1500
-- A gap of more than UNWATCHED ms between two looks at the leases does not count: workers, and commands that follow
-- a job, look more often. It costs each lease A_LOOK ms all the same, so that no lease lasts for ever if every
-- look comes late.
local UNWATCHED, A_LOOK = 3000, 1000
-- Milliseconds: no clock steps so far, the number is rubbish.
local A_MILLENNIUM = 1000 * 365 * 86400000
-- Seconds that a job is kept whose hash has lost how long.
local A_WEEK = 7 * 86400

-- The readers of arguments.
local taken = 0
local function take()
  taken = taken + 1
  return ARGV[taken]
end

local function take_list(take_item)
  local list = {}
  for i = 1, tonumber(take()) do list[i] = take_item() end
  return list
end

local function take_map(take_item)
  local map = {}
  for _ = 1, tonumber(take()) do
    local name = take()
    map[name] = take_item()
  end
  return map
end

-- Whether this is still the job of that incarnation: Redis may have been wiped and the job made again.
local function is_current(job_id, incarnation)
  return redis.call('HGET', key(job_id), 'incarnation') == incarnation
end

-- Whether the attempt still holds the shard's lease. What is claimed may come to its end in a full Redis, too.
local function holds(fence)
  even_when_full()
  if not is_current(fence.job_id, fence.incarnation) then return false end
  local lease = lease_of(fence.job_id, fence.shard)
  return lease and lease.a == fence.attempt
end

-- Notes that something of a shard was stored: its deaths count no more, nor does a refusal that is over of the worker
-- that holds it.
local function moves_on(job_id, shard)
  redis.call('HDEL', key(job_id, 'expiries'), shard)
  local lease = lease_of(job_id, shard)
  local refusal = lease and decoded(redis.call('HGET', key(job_id, 'refusals'), lease.w))
  if refusal and (tonumber(refusal['until']) or 0) <= clock() then
    redis.call('HDEL', key(job_id, 'refusals'), lease.w)
  end
end

local function drop_lease(job_id, shard)
  redis.call('HDEL', key(job_id, 'leased'), shard)
  redis.call('ZREM', LEASES, job_id .. '/' .. shard)
end

-- Counts an event for those who watch the mill. What cannot be counted stops nothing: an earlier list of rights does
-- not name the key.
local function count(event)
  drop_foreign('hash', COUNTED)
  redis.pcall('HINCRBY', COUNTED, event, 1)
end

-- Writes where a job stands among what may be claimed: places.lua.
local keep_place

-- Writes what every job begins with.
local function begin_job(job_id, new, incarnation)
  local now = clock()
  redis.call('SET', key(job_id, 'spec'), new.spec)
  redis.call('HSET', key(job_id), 'wire', WIRE, 'incarnation', incarnation, 'digest', new.digest,
    'output_key', new.output_key, 'priority', new.priority, 'state', 'open', 'ending', '', 'reason', '', 'paused', 0,
    'run', 1, 'total', 0, 'shards', 0, 'left', 0, 'done', 0, 'failed', 0, 'flagged', 0, 'cursor', 0, 'held', 0,
    'first_shard', -1, 'epoch', 0, 'created', now, 'started', 0, 'ended', 0, 'finished', 0, 'last_image', 0,
    'waiting_since', now, 'last_claim', 0, 'window_at', 0, 'window_count', 0, 'window_rate', 0)
  for field, value in pairs(new.fields) do redis.call('HSET', key(job_id), field, value) end
  redis.call('SET', new.output_key, job_id)
  redis.call('ZADD', JOBS, now, job_id)
  redis.call('ZADD', ACTIVE, new.priority, job_id)
end

-- Lets a job begin to finish once nothing is left, if its last shard is stored or it is ending early. Keeps its
-- place among what may be claimed.
function settle(job_id)
  local state, ending = redis.call('HGET', key(job_id), 'state'), ending_of(job_id)
  if state == 'sealed' or (state == 'open' and ending ~= '') then
    if redis.call('LLEN', key(job_id, 'ready')) == 0 and redis.call('HLEN', key(job_id, 'leased')) == 0 then
      mend_job(job_id)
      local outcome = ending
      if outcome == '' then
        local left, lost = recount(job_id)
        local broken = redis.call('EXISTS', key(job_id, 'broken')) == 1
        -- Those of shards that cannot be read are left for good.
        if left > 0 and (lost or not broken) and requeue(job_id, left, lost) then return keep_place(job_id) end
        local lacking = left > 0 or broken
        outcome = (lacking or number(job_id, 'failed') > 0) and 'failures' or 'complete'
      end
      redis.call('HSET', key(job_id), 'state', 'finishing', 'ended', clock(), 'outcome', outcome)
      -- What was refused was to render: who refused that may finish the job.
      redis.call('DEL', key(job_id, 'refusals'))
    end
  end
  keep_place(job_id)
end

-- Ends a job for good: adds one event, frees the output, and gives every key of the job a TTL. `cut`: its images whose
-- prompt was cut.
local function conclude(job_id, cut)
  local job = redis.call('HMGET', key(job_id), 'outcome', 'retention')
  local retention = tonumber(job[2] or '') or A_WEEK
  redis.call('HSET', key(job_id), 'state', 'finished', 'finished', clock(), 'cut', cut)
  redis.call('ZREM', ACTIVE, job_id)
  keep_place(job_id)
  free_output(job_id)
  redis.call('EXPIRE', key(job_id), retention)
  for _, part in ipairs(JOB_PARTS) do redis.call('EXPIRE', key(job_id, part), retention) end
  -- No event where a user without a right to them ends the job, because no worker will.
  redis.pcall('XADD', EVENTS, 'MAXLEN', '~', 1000, '*', 'event', 'finished', 'job', job_id, 'run', number(job_id, 'run'),
    'outcome', job[1] or 'failures', 'done', number(job_id, 'done'), 'failed', number(job_id, 'failed'), 'cut', cut)
end

-- Lets a shard whose attempt ended without a result wait again, first in line, unless its job is ending.
local function put_back(job_id, shard, now)
  drop_lease(job_id, shard)
  if redis.call('EXISTS', key(job_id)) == 0 or shard == 'finish' then
    keep_place(job_id)
    return
  end
  if ending_of(job_id) == '' and string.match(shard, '^%d+$') then
    if redis.call('LPUSH', key(job_id, 'ready'), shard) == 1 then
      redis.call('HSET', key(job_id), 'waiting_since', now)
    end
  end
  settle(job_id)
end

-- Ends a job early ('cancelled', 'stopped'): what waits is dropped, what is leased may come to its end.
local function end_early(job_id, ending, reason)
  redis.call('HSET', key(job_id), 'ending', ending, 'reason', reason, 'paused', 0)
  redis.call('DEL', key(job_id, 'ready'))
  settle(job_id)
end

-- Whether the image is neither done nor failed.
local function is_open(job_id, image)
  return redis.call('GETBIT', key(job_id, 'done'), image) == 0
    and redis.call('HEXISTS', key(job_id, 'failures'), image) == 0
end

local function is_alone(job_id, lease)
  return lease.alone and is_open(job_id, lease.alone)
end

-- Finds what is to blame for a lease that ran out: its worker died or was cut off. An image that was alone in the
-- slots is charged with the death. Otherwise what was in the slots is kept, to be suspected if this goes on.
local function blame(job_id, shard, lease)
  if is_alone(job_id, lease) then
    redis.call('HINCRBY', key(job_id, 'deaths'), lease.alone, 1)
    return
  end
  local expiries = expiries_of(job_id, shard)
  expiries.count = expiries.count + 1
  local known = {}
  for _, image in ipairs(expiries.images) do known[image] = true end
  for _, image in ipairs(lease.rows or {}) do
    if not known[image] then expiries.images[#expiries.images + 1] = image end
  end
  redis.call('HSET', key(job_id, 'expiries'), shard, cjson.encode(expiries))
  if shard ~= 'finish' and expiries.count >= STOP_AFTER and ending_of(job_id) == '' then
    end_early(job_id, 'stopped', 'the lease of shard ' .. shard .. ' ran out ' .. expiries.count .. ' times without '
      .. 'a new picture: its workers die or are cut off before they begin; see their logs')
  end
end

-- The clock stepped back by `step` ms: what lies in its future now, of jobs that are not finished, moves with it.
local function move_back(step, now)
  for _, job_id in ipairs(redis.call('ZRANGE', ACTIVE, 0, -1)) do
    guarded(job_id, function()
      for _, field in ipairs({'created', 'started', 'waiting_since', 'last_claim', 'window_at', 'last_image'}) do
        local time = number(job_id, field)
        if time > now then redis.call('HSET', key(job_id), field, math.max(1, time - step)) end
      end
      local refusals = redis.call('HGETALL', key(job_id, 'refusals'))
      for i = 1, #refusals, 2 do
        local refusal = decoded(refusals[i + 1]) or {}
        refusal['until'] = (tonumber(refusal['until']) or 0) - step
        redis.call('HSET', key(job_id, 'refusals'), refusals[i], cjson.encode(refusal))
      end
      keep_place(job_id)
    end)
  end
end

-- Gives every lease back the time in which no process looked at the leases: Redis was away, or everyone was. A clock
-- that stepped, either way, looks like that, too. No lease lasts longer than it was given.
local function forgive(now)
  local looked = redis.pcall('GET', REAPED)
  local gap = now - (tonumber(type(looked) == 'string' and looked) or now)
  if not (math.abs(gap) < A_MILLENNIUM) then gap = 0 end
  redis.call('SET', REAPED, now)
  if gap >= 0 and gap <= UNWATCHED then return end
  local shift = gap < 0 and gap or gap - A_LOOK
  local leases = redis.call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
  for i = 1, #leases, 2 do
    local ends, job_id, shard = tonumber(leases[i + 1]) + shift, split_member(leases[i])
    guarded(job_id, function()
      local lease = shard and lease_of(job_id, shard)
      if lease and tonumber(lease.l) then ends = math.min(ends, now + lease.l) end
      redis.call('ZADD', LEASES, ends, leases[i])
    end)
  end
  if gap < -A_LOOK then move_back(-gap, now) end
end

-- Puts back every shard whose lease has run out; returns how many. An expiry of a shard without images in the slots
-- does not count if another shard of its worker had some. Its lease may run out a little later than that one's:
-- it is marked as excused.
local function reap(now)
  even_when_full()
  forgive(now)
  local due = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now + ONE_DEATH, 'WITHSCORES')
  local entries, guilty = {}, {}
  for i = 1, #due, 2 do
    local job_id, shard = split_member(due[i])
    if not shard then redis.call('ZREM', LEASES, due[i]) end
    guarded(job_id, function()
      local lease = shard and lease_of(job_id, shard) or {}
      local entry = {job_id = job_id, shard = shard, lease = lease, expired = tonumber(due[i + 1]) <= now}
      entry.innocent = shard ~= 'finish' and not is_alone(job_id, lease) and #(lease.rows or {}) == 0
      if lease.w and not entry.innocent then guilty[lease.w] = guilty[lease.w] or entry.expired end
      if shard then entries[#entries + 1] = entry end
    end)
  end
  local expired = 0
  for _, entry in ipairs(entries) do
    local job_id, shard, lease = entry.job_id, entry.shard, entry.lease
    local excused = entry.innocent and guilty[lease.w] ~= nil
    if entry.expired then
      guarded(job_id, function()
        local there = redis.call('EXISTS', key(job_id)) == 1
        if there and not (excused or lease.excused) then blame(job_id, shard, lease) end
        put_back(job_id, shard, now)
        expired = expired + 1
        if there then count('lease_expiries') end
      end)
    elseif excused and guilty[lease.w] then
      lease.excused = true
      redis.call('HSET', key(job_id, 'leased'), shard, cjson.encode(lease))
    end
  end
  return expired
end

-- Stops a job at its bound of pictures that failed or are doubted.
local function check_bound(job_id)
  local bound, bad = number(job_id, 'max_failures'), number(job_id, 'failed') + number(job_id, 'flagged')
  if bound > 0 and bad >= bound and ending_of(job_id) == '' then
    end_early(job_id, 'stopped', bad .. ' images failed or are flagged, max_failures is ' .. bound)
  end
end

-- Counts new pictures into the rate of the last half minute. It begins with the first pictures, which are not counted:
-- the time before them was that of loading the model.
local function count_into_window(job_id, pictures, now)
  local window_at = number(job_id, 'window_at')
  if window_at == 0 or window_at > now then
    redis.call('HSET', key(job_id), 'window_at', now, 'window_count', 0)
  elseif now - window_at < 30000 then
    redis.call('HINCRBY', key(job_id), 'window_count', pictures)
  else
    local rate = (number(job_id, 'window_count') + pictures) * 1000 / (now - window_at)
    redis.call('HSET', key(job_id), 'window_at', now, 'window_count', 0, 'window_rate', tostring(rate))
  end
end

-- Marks images done, and those of them that are kept but doubted. Counts only bits that turn from 0 to 1, and returns
-- how many did. A failure that was rendered after all is no longer one.
local function mark_done(job_id, marks)
  local turned, mended = 0, 0
  for _, image in ipairs(marks.flagged) do
    if redis.call('SETBIT', key(job_id, 'flagged'), image, 1) == 0 then
      redis.call('HINCRBY', key(job_id), 'flagged', 1)
    end
  end
  for _, image in ipairs(marks.done) do
    if redis.call('SETBIT', key(job_id, 'done'), image, 1) == 0 then
      turned = turned + 1
      mended = mended + redis.call('HDEL', key(job_id, 'failures'), image)
    end
  end
  if turned == 0 then return 0 end
  local now = clock()
  redis.call('HINCRBY', key(job_id), 'done', turned)
  redis.call('HINCRBY', key(job_id), 'failed', 0 - mended)
  redis.call('HINCRBY', key(job_id), 'left', mended - turned)
  redis.call('HSET', key(job_id), 'last_image', now)
  count_into_window(job_id, turned, now)
  check_bound(job_id)
  return turned
end

-- Takes back that an image is done.
local function take_back(job_id, image)
  if redis.call('SETBIT', key(job_id, 'done'), image, 0) == 0 then return end
  redis.call('HINCRBY', key(job_id), 'done', -1)
  redis.call('HINCRBY', key(job_id), 'left', 1)
  redis.call('HINCRBY', key(job_id), 'flagged', 0 - redis.call('SETBIT', key(job_id, 'flagged'), image, 0))
end

-- Marks images failed, unless they are done. Returns how many had not failed before.
local function mark_failed(job_id, marks)
  local new = 0
  for image, failure in pairs(marks.failures) do
    if redis.call('GETBIT', key(job_id, 'done'), image) == 0 then
      new = new + redis.call('HSETNX', key(job_id, 'failures'), image, failure)
    end
  end
  if new == 0 then return 0 end
  redis.call('HINCRBY', key(job_id), 'failed', new)
  redis.call('HINCRBY', key(job_id), 'left', -new)
  check_bound(job_id)
  return new
end
