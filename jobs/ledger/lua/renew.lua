-- Renews leases and notes what is in the slots now. Returns 'held', 'lost' or 'ending' for each
local now, states = clock(), {}
even_when_full()
forgive(now)
for i, renewal in ipairs(renewals) do
  local fence = renewal.fence
  if not holds(fence) then
    states[i] = 'lost'
  else
    local lease = lease_of(fence.job_id, fence.shard)
    lease.rows, lease.excused, lease.l = renewal.slots, nil, lease_ms
    redis.call('HSET', key(fence.job_id, 'leased'), fence.shard, cjson.encode(lease))
    redis.call('ZADD', LEASES, now + lease_ms, fence.job_id .. '/' .. fence.shard)
    local ending = fence.shard ~= 'finish' and ending_of(fence.job_id) ~= ''
    states[i] = ending and 'ending' or 'held'
  end
end
return states
