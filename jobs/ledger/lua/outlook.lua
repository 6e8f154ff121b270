-- Returns {left, growth, open, paused, refused}: whether there is something that one of these workers may still render or
-- finish (1 or 0); a number that changes while jobs without a shard are submitted; how many of these there are; how many
-- jobs are paused; how many all of these workers have refused. The last four are whole only if nothing is left.
-- Counts in a job that others render: their leases may run out.
local growth, open, paused, refused = 0, 0, 0, 0
local ours = {}
for _, worker in ipairs(workers) do ours[worker] = true end

local function is_held(job_id)
  for _, shard in ipairs(redis.call('HKEYS', key(job_id, 'leased'))) do
    local lease = lease_of(job_id, shard)
    if lease and ours[lease.w] then return true end
  end
  return false
end

-- Whether each of the workers has refused the job. One that took it up again when its refusal was over counts here, too:
-- otherwise a worker that refuses for ever would find something left each time.
local function is_refused(job_id)
  for _, worker in ipairs(workers) do
    if redis.call('HEXISTS', key(job_id, 'refusals'), worker) == 0 then return false end
  end
  return #workers > 0
end

-- Whether a job is left for these workers.
local function is_left(job_id)
  local job = redis.call('HMGET', key(job_id), 'state', 'paused', 'ending', 'pipeline', 'model', 'cursor', 'incarnation')
  local state, is_open = job[1], job[1] == 'open'
  if not job[7] or not (is_open or state == 'sealed' or state == 'finishing') then return false end
  local ready, leased = redis.call('LLEN', key(job_id, 'ready')), redis.call('HLEN', key(job_id, 'leased'))
  if leased > 0 and is_held(job_id) then return true end
  if state ~= 'finishing' then
    -- Any worker may finish what comes to its early end.
    if (job[3] or '') ~= '' then return leased > 0 end
    if not may_take('', model_of(job[4] or '[]', job[5] or ''), models) then return false end
    if job[2] == '1' then
      paused = paused + 1
      return false
    end
  end
  if is_refused(job_id) then
    -- Of one that ends early, only the report is refused: nobody waits for its images.
    if (job[3] or '') == '' then refused = refused + 1 end
    return false
  end
  if is_open and ready == 0 and leased == 0 then
    open, growth = open + 1, growth + 1 + number_or_0(job[6])
    return false
  end
  return true
end

for _, job_id in ipairs(redis.call('ZRANGE', ACTIVE, 0, -1)) do
  local left = false
  guarded(job_id, function() left = is_left(job_id) end)
  if left then return {1, growth, open, paused, refused} end
end
return {0, growth, open, paused, refused}
