-- Lowers the slots of a job's forwards, because the device's memory ran out. It lowers this job's number alone: what
-- else held the memory may be gone by the next job.
-- Returns the slots, or -1 when the lease is lost
if not holds(fence) then return -1 end
local job_slots, field = key(fence.job_id, 'rows'), kind .. '\n' .. size
-- Another worker may have found less room before.
local settled = tonumber(redis.call('HGET', job_slots, field) or '0') or 0
if settled == 0 or slots < settled then redis.call('HSET', job_slots, field, slots) end
return slots
