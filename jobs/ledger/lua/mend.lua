-- Drops keys that hold what they cannot hold: those of another kind, and counts that are none. ARGV: jobs that are
-- looked at even if no list has them. Returns the names of the keys
mend_shared()
for _, job_id in ipairs(ARGV) do mend_job(job_id) end
for _, job_id in ipairs(redis.call('ZRANGE', ACTIVE, 0, -1)) do mend_job(job_id) end
return dropped
