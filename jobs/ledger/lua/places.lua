-- What may be claimed, in the order of claims, so that a claim need not look at every job. Each job that has a shard
-- that waits, or that only has to be finished, has one place: a member of a sorted set. There is a set for each
-- pipeline (CLAIMABLE:PIPELINE), one for jobs to be finished, one for those that workers died of finishing. CLAIMABLE
-- lists the sets. The score is the priority. Members of one score are in the order of their bytes: how many shards
-- are claimed, when one was last, the job's id.
--
-- Places follow from the job's own keys and are written wherever those change. A claim compares the place that it
-- found with the job, so one that is out of date misleads nobody. One that is lacking is put back: by the next claim
-- if a whole set or the list is gone, as in a Redis that an earlier version left, else by `sweep`.

-- The field of CLAIMABLE that says that every job has had its place written.
local WHOLE = 'whole'
-- Milliseconds between two sweeps of any process; how many sweeps it takes to see every job; how many jobs a sweep
-- looks at, at least.
local SWEEP_EVERY, SWEEPS, LEAST_SWEPT = 1000, 30, 50

-- A call on one of these keys. One of another type is rubbish: it is replaced, and all places are written again.
local function call(command, name, ...)
  local answer = redis.pcall(command, name, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if not string.find(answer.err, 'WRONGTYPE', 1, true) then error(answer.err) end
  redis.call('DEL', name)
  if name ~= CLAIMABLE then call('HDEL', CLAIMABLE, WHOLE) end
  return redis.call(command, name, ...)
end

local function set_key(set)
  return CLAIMABLE .. ':' .. set
end

-- A field of a hash as a number; 0 for what is none.
local function number_or_0(text)
  local found = tonumber(text or '')
  return found and found == found and found or 0
end

-- The model that a pipeline begins with (JobSpec.pipeline): all jobs of a set must have the same.
local function model_of(pipeline, default)
  local model = (decoded(pipeline) or {})[1]
  return type(model) == 'string' and model or default
end

-- The job as it is now, with its place: `set` and `member`, nil if nothing of it may be claimed.
local function job_in_place(job_id)
  local fields = redis.call('HMGET', key(job_id), 'state', 'paused', 'ending', 'pipeline', 'model', 'priority',
    'waiting_since', 'last_claim', 'place', 'incarnation')
  local state, paused, ending, pipeline, model, priority, waiting_since, last_claim, place, incarnation
    = unpack(fields)
  local job = {job_id = job_id, pipeline = pipeline or '[]', model = model or '', written = place or '',
    priority = number_or_0(priority), waiting_since = number_or_0(waiting_since),
    last_claim = number_or_0(last_claim)}
  if not incarnation then return job end
  if state == 'finishing' then
    if redis.call('HLEN', key(job_id, 'leased')) == 0 then
      job.kind, job.doubted = 'finish', expiries_of(job_id, 'finish').count >= SUSPECT_AFTER
      job.set, job.member = job.doubted and 'doubted' or 'finish', '/' .. job_id
    end
  elseif (state == 'open' or state == 'sealed') and paused ~= '1' and (ending or '') == '' then
    job.ready = redis.call('LLEN', key(job_id, 'ready'))
    if job.ready > 0 then
      local leased = redis.call('HLEN', key(job_id, 'leased'))
      job.kind, job.set = 'shard', job.pipeline
      job.member = string.format('%06d:%017.3f/', leased, job.last_claim) .. job_id
    end
  end
  return job
end

local function add_to_set(job)
  call('ZADD', set_key(job.set), job.priority, job.member)
  call('HSET', CLAIMABLE, job.set, job.kind == 'shard' and model_of(job.pipeline, job.model) or '')
end

local function remove_from_set(set, member)
  call('ZREM', set_key(set), member)
  if redis.call('EXISTS', set_key(set)) == 0 then call('HDEL', CLAIMABLE, set) end
end

-- Writes the job's place where it has changed; with `thorough`, also where it is written but has got lost.
function keep_place(job_id, thorough)
  local job
  guarded(job_id, function() job = job_in_place(job_id) end)
  -- What cannot be read stands in nobody's way.
  if not job then return {job_id = job_id} end
  local place = job.set and (job.kind == 'shard' and 'shard' or job.set) .. ' ' .. job.member or ''
  if place ~= job.written then
    local kind, member = string.match(job.written, '^(%a+) (.*)$')
    if kind then remove_from_set(kind == 'shard' and job.pipeline or kind, member) end
    if job.set then
      add_to_set(job)
      redis.call('HSET', key(job_id), 'place', place)
    else
      redis.call('HDEL', key(job_id), 'place')
    end
  elseif job.set and thorough then
    if not call('ZSCORE', set_key(job.set), job.member) or call('HEXISTS', CLAIMABLE, job.set) == 0 then
      add_to_set(job)
    end
  end
  return job
end

-- Whether `walk` met a place that was out of date.
local misled = false

-- Looks at some of the unfinished jobs, in turn, and puts back the places that they lack.
local function sweep(now)
  local swept = call('HMGET', SWEPT, 'at', 'next')
  local at, next_job = number_or_0(swept[1]), number_or_0(swept[2])
  if at <= now and now - at < SWEEP_EVERY then return end
  local jobs = redis.call('ZCARD', ACTIVE)
  local some = math.max(LEAST_SWEPT, math.ceil(jobs / SWEEPS))
  if next_job < 0 or next_job >= jobs then next_job = 0 end
  for _, job_id in ipairs(redis.call('ZRANGE', ACTIVE, next_job, next_job + some - 1)) do keep_place(job_id, true) end
  call('HSET', SWEPT, 'at', now, 'next', next_job + some)
end

-- The sets in which something may be claimed: name -> model. If one that is listed is gone, or the list is, every
-- job's place is written again.
local function claimable_sets()
  for _ = 1, 2 do
    local listed, sets, whole = call('HGETALL', CLAIMABLE), {}, false
    for i = 1, #listed, 2 do
      if listed[i] == WHOLE then whole = true else sets[listed[i]] = listed[i + 1] end
    end
    for set in pairs(sets) do
      if call('ZCARD', set_key(set)) == 0 then whole = false end
    end
    if whole then return sets end
    redis.call('DEL', CLAIMABLE)
    for _, job_id in ipairs(redis.call('ZRANGE', ACTIVE, 0, -1)) do keep_place(job_id, true) end
    call('HSET', CLAIMABLE, WHOLE, 1)
  end
  error('the places of jobs cannot be written')
end

-- Whether a worker of these models (any, if there are none) may take what is in a set. Any worker finishes jobs.
local function may_take(set, model, models)
  if set == 'finish' or set == 'doubted' or #models == 0 then return true end
  for _, one in ipairs(models) do
    if one == model then return true end
  end
  return false
end

-- Whether a job is claimed before another.
local function before(a, b)
  if a.priority ~= b.priority then return a.priority < b.priority end
  -- Lua compares texts by the locale, and the sets by their bytes.
  for i = 1, math.min(#a.member, #b.member) do
    local x, y = string.byte(a.member, i), string.byte(b.member, i)
    if x ~= y then return x < y end
  end
  return #a.member < #b.member
end

-- Whether the worker refused the job lately.
local function refuses(job_id, worker, now)
  local refusal
  guarded(job_id, function() refusal = decoded(redis.call('HGET', key(job_id, 'refusals'), worker)) end)
  return refusal and (tonumber(refusal['until']) or 0) > now
end

-- Calls `visit` with each job of a set that the worker does not refuse, in their order, until it returns true. Stops
-- where jobs do not come before `best`. Puts places right that are out of date.
local function walk(set, worker, now, best, visit)
  local from, size, seen = 0, 1, {}
  while true do
    local members, wrong = call('ZRANGE', set_key(set), from, from + size - 1, 'WITHSCORES'), false
    for i = 1, #members, 2 do
      local found = {member = members[i], priority = tonumber(members[i + 1])}
      if best and not before(found, best) then return end
      local job_id = string.match(found.member, '^[^/]*/(.*)$') or ''
      -- A worker may refuse thousands of jobs: no more is asked of these.
      if not seen[job_id] and not refuses(job_id, worker, now) then
        local job = keep_place(job_id)
        wrong = job.set ~= set or job.member ~= found.member or job.priority ~= found.priority
        if wrong then
          misled = true
          if job.set == set and job.member == found.member then
            add_to_set(job)
          else
            remove_from_set(set, found.member)
            if job.set then keep_place(job_id, true) end
          end
          from = job.set == set and before(job, found) and 0 or from + (i - 1) / 2
          break
        end
        if visit(job) then return end
        seen[job_id] = true
      end
    end
    if not wrong then
      if #members < 2 * size then return end
      from, size = from + size, math.min(4 * size, 64)
    end
  end
end

-- The first job of a set that the worker does not refuse and that comes before `best`; else `best`.
local function first(set, worker, now, best)
  local found = best
  walk(set, worker, now, best, function(job)
    found = job
    return true
  end)
  return found
end
