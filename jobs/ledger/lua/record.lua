-- Records finished images while their shard is still being rendered.
-- ARGV: job, incarnation, shard, attempt, count of done, indices done …, then index, failure JSON …
-- Returns how many bits turned, or -1 when the lease is lost
local id = ARGV[1]
if not holds(id, ARGV[2], ARGV[3], ARGV[4]) then return -1 end
local count, done, failures = tonumber(ARGV[5]), {}, {}
for i = 6, 5 + count do done[#done + 1] = ARGV[i] end
for i = 6 + count, #ARGV do failures[#failures + 1] = ARGV[i] end
local turned = mark_done(id, done, clock())
if turned + mark_failed(id, failures) > 0 then redis.call('HDEL', key(id, 'expiries'), ARGV[3]) end
return turned
