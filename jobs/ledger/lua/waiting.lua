-- How many claims a worker would find now. ARGV: worker, models (JSON list)
local count = 0
for _, job in ipairs(claimable(ARGV[1], cjson.decode(ARGV[2]))) do
  count = count + (job.kind == 'finish' and 1 or redis.call('LLEN', key(job.id, 'ready')))
end
return count
