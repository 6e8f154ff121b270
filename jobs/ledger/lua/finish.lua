-- Ends a job for good, after its report was written.
-- Returns 1, or -1 when another attempt finishes it
if fence.shard ~= 'finish' or not holds(fence) then return -1 end
local job_id = fence.job_id
mend_shared()
mend_job(job_id)
drop_lease(job_id, 'finish')
conclude(job_id, cut)
return 1
