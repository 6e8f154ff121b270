-- Renews leases. ARGV: lease ms, then job, incarnation, shard, attempt, JSON list of the images in its slots …
-- Returns one of 'held', 'lost', 'ending' for each
local now, states = clock(), {}
forgive(now)
for i = 2, #ARGV, 5 do
  local id, shard = ARGV[i], ARGV[i + 2]
  if not holds(id, ARGV[i + 1], shard, ARGV[i + 3]) then
    states[#states + 1] = 'lost'
  else
    local lease = cjson.decode(redis.call('HGET', key(id, 'leased'), shard))
    lease.rows, lease.excused = cjson.decode(ARGV[i + 4]), nil
    redis.call('HSET', key(id, 'leased'), shard, cjson.encode(lease))
    redis.call('ZADD', LEASES, now + tonumber(ARGV[1]), id .. '/' .. shard)
    local ending = shard ~= 'finish' and redis.call('HGET', key(id), 'ending') ~= ''
    states[#states + 1] = ending and 'ending' or 'held'
  end
end
return states
