-- Gives a shard back unfinished. Returns 1, or -1 when the lease is lost
if not holds(fence) then return -1 end
put_back(fence.job_id, fence.shard, clock())
return 1
