-- Drops keys that hold what they cannot hold: those of another kind, and counts that are none. Returns their names
mend_shared()
for _, job_id in ipairs(redis.call('ZRANGE', ACTIVE, 0, -1)) do mend_job(job_id) end
return dropped
