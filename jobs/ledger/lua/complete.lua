-- Ends a committed shard: everything in it is recorded once more, because Redis may have lost its last second
-- in a restart; the lease ends, and the job may start to finish. The output decides: an image that failed there is
-- not done, even if an earlier attempt rendered it.
-- Returns how many images were not done before, or -1 when the lease is lost
if not holds(fence) then return -1 end
local job_id = fence.job_id
local turned = mark_done(job_id, marks)
for image in pairs(marks.failures) do take_back(job_id, image) end
mark_failed(job_id, marks)
moves_on(job_id, fence.shard)
drop_lease(job_id, fence.shard)
settle(job_id)
return turned
