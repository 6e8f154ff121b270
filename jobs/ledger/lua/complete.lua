-- Ends a committed shard: everything it holds is recorded once more (Redis may have come back a second
-- older), the lease ends, and the job may start to finish. The output decides: what failed there is not done,
-- though an attempt that died before may have rendered it.
-- ARGV and result: as record.lua
local id = ARGV[1]
if not holds(id, ARGV[2], ARGV[3], ARGV[4]) then return -1 end
local count, done, failures = tonumber(ARGV[5]), {}, {}
for i = 6, 5 + count do done[#done + 1] = ARGV[i] end
for i = 6 + count, #ARGV do failures[#failures + 1] = ARGV[i] end
local turned = mark_done(id, done, clock())
for i = 1, #failures, 2 do take_back(id, failures[i]) end
mark_failed(id, failures)
redis.call('HDEL', key(id, 'expiries'), ARGV[3])
drop_lease(id, ARGV[3])
settle(id)
return turned
