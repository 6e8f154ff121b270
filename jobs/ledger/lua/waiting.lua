-- Returns how many claims a worker would find now
local count = 0
for _, job in ipairs(claimable(worker, models)) do
  count = count + (job.kind == 'finish' and 1 or redis.call('LLEN', key(job.job_id, 'ready')))
end
return count
