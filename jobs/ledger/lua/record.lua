-- Records finished images while their shard is still being rendered.
-- Returns how many were not done before, or -1 when the lease is lost
if not holds(fence) then return -1 end
local turned = mark_done(fence.job_id, marks)
if turned + mark_failed(fence.job_id, marks) > 0 then moves_on(fence.job_id, fence.shard) end
return turned
