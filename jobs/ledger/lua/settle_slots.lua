-- Settles with how many slots a job renders pictures of one size on one kind of device: the first answer holds.
-- A measurement is remembered for other jobs too.
-- Returns the slots, 0 (measure them), -1 (the lease is lost), or the other kind of device that began the job
if not holds(fence) then return -1 end
local job_slots, field = key(fence.job_id, 'rows'), kind .. '\n' .. size
local settled = tonumber(redis.call('HGET', job_slots, field) or '0') or 0
if settled > 0 then return settled end
if not mixed then
  local begun_on
  for _, other in ipairs(redis.call('HKEYS', job_slots)) do
    local its_kind = string.match(other, '^(.-)\n')
    -- If ours is among several, the others joined the job with --mixed-hardware.
    if its_kind == kind then begun_on = nil break end
    begun_on = its_kind
  end
  if begun_on then return begun_on end
end
if slots == 0 then
  slots = tonumber(remembered ~= '' and redis.call('HGET', SLOTS, remembered) or '0') or 0
  if slots < 2 or slots % 1 ~= 0 then slots = 0 end -- rubbish: they are measured again
elseif remembered ~= '' then
  redis.call('HSET', SLOTS, remembered, slots)
end
if slots > 0 then redis.call('HSET', job_slots, field, slots) end
return slots
