-- The whole policy of who renders what next, in one atomic step.
-- 1. Leases that ran out are put back.
-- 2. A job that only has to be finished goes first. If workers died while they finished it, it goes last, to a
--    worker that holds nothing else.
-- 3. Among jobs with a shard that waits: the lowest priority number; then the job with the fewest claimed shards
--    (fair share); then the one that was claimed from longest ago.
-- 4. A worker keeps its loaded pipeline: it takes another's shard only when there was nothing for its own for 2 s,
--    or when other work of at least equal priority has waited longer than max(60 s, 10 x the load time).
-- Returns {} or {kind, job, incarnation, shard, attempt, blob, suspects, condemned}. The last two are JSON lists of
-- images: those that must be rendered alone ('*': all of them; for a finishing: workers died of it), and those that
-- too many workers died of
local now, full = clock(), when_full()
reap(now)

local function holds_something()
  for _, member in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    local lease = lease_of(split_member(member))
    if lease and lease.w == worker then return true end
  end
  return false
end

local function choose()
  local sets, finish, own, other = claimable_sets()
  if sets.finish then finish = first('finish', worker, now) end
  for set, model in pairs(finish and {} or sets) do
    if set ~= 'finish' and set ~= 'doubted' and may_take(set, model, state.models) then
      if state.loaded == '' or set == state.loaded then
        own = first(set, worker, now, own)
      else
        other = first(set, worker, now, other)
      end
    end
  end

  local chosen = finish or own
  if not finish and other then
    local waited = now - math.max(other.waiting_since, other.last_claim)
    if own then
      if other.priority <= own.priority and waited > math.max(60000, 10 * state.load_ms) then chosen = other end
    elseif state.idle_ms >= 2000 then
      chosen = other
    end
  end
  if not chosen and not other and sets.doubted and not holds_something() then
    chosen = first('doubted', worker, now)
  end
  return chosen
end

-- The walk put right a place that was out of date. Its job may now be in a set that was passed: look once more.
local chosen = choose()
if not chosen and misled then chosen = choose() end
if not chosen then return {} end
-- What is claimed comes to its end in a full Redis, and nothing else is begun there.
if full and chosen.kind == 'shard' then return full end

local job_id = chosen.job_id
mend_job(job_id)
local shard = chosen.kind == 'finish' and 'finish' or next_shard(job_id)
if not shard then return {} end
-- The token distinguishes attempts of one epoch: if Redis loses its last second, it counts an epoch twice.
local attempt = string.format('%06d-%s', redis.call('HINCRBY', key(job_id), 'epoch', 1), token)
redis.call('HSET', key(job_id, 'leased'), shard, cjson.encode({a = attempt, w = worker, t = now, l = lease_ms}))
redis.call('ZADD', LEASES, now + lease_ms, job_id .. '/' .. shard)
redis.call('HSET', key(job_id), 'last_claim', precise_clock())
keep_place(job_id)
if chosen.kind == 'shard' then
  redis.call('SADD', key(job_id, 'workers'), worker)
  if number(job_id, 'started') == 0 then redis.call('HSET', key(job_id), 'started', now) end
end
-- A blob that is lost is none that can be read: its shard is set aside.
local blob = shard ~= 'finish' and redis.call('HGET', key(job_id, 'shards'), shard) or ''
local suspects, condemned = {}, {}
if chosen.doubted then
  suspects = '*'
elseif shard ~= 'finish' then
  local deaths = redis.call('HGETALL', key(job_id, 'deaths'))
  for i = 1, #deaths, 2 do
    if (tonumber(deaths[i + 1]) or 0) >= MOST_DEATHS then
      condemned[#condemned + 1] = tonumber(deaths[i])
    elseif is_open(job_id, deaths[i]) then
      suspects[#suspects + 1] = tonumber(deaths[i])
    end
  end
  local expiries = expiries_of(job_id, shard)
  local others = {}
  for _, image in ipairs(expiries.images) do
    if is_open(job_id, image) then others[#others + 1] = image end
  end
  if #others > 0 and expiries.count >= SUSPECT_AFTER then
    for _, image in ipairs(others) do suspects[#suspects + 1] = image end
  elseif expiries.count >= SUSPECT_ALL_AFTER then
    suspects = '*'
  end
end
-- By hand: cjson writes an empty list as {}.
local function json_list(list) return list == '*' and list or '[' .. table.concat(list, ',') .. ']' end
return {chosen.kind, job_id, redis.call('HGET', key(job_id), 'incarnation'), shard, attempt, blob,
  json_list(suspects), json_list(condemned)}
