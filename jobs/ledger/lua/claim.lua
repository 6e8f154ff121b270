-- The whole policy of who renders what next, in one atomic step.
-- 1. Leases that ran out are put back. 2. A job that wants finishing goes first; when workers died of finishing it,
-- last, to a worker that holds nothing else. 3. Among jobs with a shard
-- that waits: the lowest priority number; then the job with the fewest claimed shards (fair share); then
-- the one claimed from longest ago. 4. A worker keeps its loaded pipeline: it takes another's shard only
-- when there was nothing for its own for 2 s, or when other work of at least equal priority has waited longer
-- than max(60 s, 10 x the load time).
-- ARGV: worker, token, lease ms, loaded pipeline ('' for none), idle ms, load ms, models (JSON list)
-- Returns {} or {kind, job, incarnation, shard, attempt, blob, suspects, condemned}: JSON lists of images that
-- must be rendered alone ('*' for all; of a finishing: workers died of it), and of those that too many workers
-- died of
local worker, token, lease_ms, loaded = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local idle_ms, load_ms, models = tonumber(ARGV[5]), tonumber(ARGV[6]), cjson.decode(ARGV[7])
local now = clock()
reap(now)

local function before(a, b)
  if not b then return true end
  if a.priority ~= b.priority then return a.priority < b.priority end
  if a.leased ~= b.leased then return a.leased < b.leased end
  return a.last_claim < b.last_claim
end

local finish, doubted, own, other
for _, job in ipairs(claimable(worker, models)) do
  if job.doubted then
    doubted = doubted or job
  elseif job.kind == 'finish' then
    finish = finish or job
  elseif loaded == '' or job.pipeline == loaded then
    if before(job, own) then own = job end
  elseif before(job, other) then
    other = job
  end
end

local chosen = finish or own
if not finish and other then
  local waited = now - math.max(other.waiting_since, other.last_claim)
  if own then
    if other.priority <= own.priority and waited > math.max(60000, 10 * load_ms) then chosen = other end
  elseif idle_ms >= 2000 then
    chosen = other
  end
end
local function holds_something()
  for _, member in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    local id, shard = string.match(member, '^(.*)/([^/]*)$')
    local lease = redis.call('HGET', key(id, 'leased'), shard)
    if lease and cjson.decode(lease).w == worker then return true end
  end
  return false
end

if not chosen and doubted and not other and not holds_something() then chosen = doubted end
if not chosen then return {} end

local id = chosen.id
local shard = chosen.kind == 'finish' and 'finish' or redis.call('LPOP', key(id, 'ready'))
-- The token keeps attempts apart when Redis came back a second older and counts an epoch again.
local attempt = string.format('%06d-%s', redis.call('HINCRBY', key(id), 'epoch', 1), token)
redis.call('HSET', key(id, 'leased'), shard, cjson.encode({a = attempt, w = worker, t = now}))
redis.call('ZADD', LEASES, now + lease_ms, id .. '/' .. shard)
redis.call('HSET', key(id), 'last_claim', precise_clock())
if chosen.kind == 'shard' then
  redis.call('SADD', key(id, 'workers'), worker)
  if number(id, 'started') == 0 then redis.call('HSET', key(id), 'started', now) end
end
local blob = shard ~= 'finish' and redis.call('HGET', key(id, 'shards'), shard) or ''
local suspects, condemned = {}, {}
if chosen.doubted then
  suspects = '*'
elseif shard ~= 'finish' then
  local deaths = redis.call('HGETALL', key(id, 'deaths'))
  for i = 1, #deaths, 2 do
    if tonumber(deaths[i + 1]) >= MOST_DEATHS then
      condemned[#condemned + 1] = tonumber(deaths[i])
    elseif is_open(id, deaths[i]) then
      suspects[#suspects + 1] = tonumber(deaths[i])
    end
  end
  local expiries = expiries_of(id, shard)
  local others = {}
  for _, index in ipairs(expiries.images) do
    if is_open(id, index) then others[#others + 1] = index end
  end
  if #others > 0 and expiries.count >= SUSPECT_AFTER then
    for _, index in ipairs(others) do suspects[#suspects + 1] = index end
  elseif expiries.count >= SUSPECT_ALL_AFTER then
    suspects = '*'
  end
end
local function listed(list) return list == '*' and list or '[' .. table.concat(list, ',') .. ']' end
return {chosen.kind, id, redis.call('HGET', key(id), 'incarnation'), shard, attempt, blob, listed(suspects),
  listed(condemned)}
