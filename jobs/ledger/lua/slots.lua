-- Settles with how many slots a job renders pictures of one size on one kind of device: the first answer holds.
-- What was measured is remembered for other jobs too. A cap (the device's memory ran out) lowers the job's alone:
-- what else held the memory then may be gone at the next.
-- ARGV: job, incarnation, shard, attempt, kind, size, slots (0: only look), mixed (0 or 1), what the measurement
-- is remembered under ('' for a number that was not measured), cap (0 or 1)
-- Returns the slots, 0 (measure them), -1 (the lease is lost), or the kind that began the job and is another one
local id, kind, size, slots = ARGV[1], ARGV[5], ARGV[6], tonumber(ARGV[7])
local mixed, measured, cap = ARGV[8] == '1', ARGV[9], ARGV[10] == '1'
if not holds(id, ARGV[2], ARGV[3], ARGV[4]) then return -1 end
local field = kind .. '\n' .. size
local settled = tonumber(redis.call('HGET', key(id, 'rows'), field) or '0')
if cap then
  -- Another worker may have found less room before.
  if settled == 0 or slots < settled then redis.call('HSET', key(id, 'rows'), field, slots) end
  return slots
end
if settled > 0 then return settled end
if not mixed then
  local begun_on
  for _, other in ipairs(redis.call('HKEYS', key(id, 'rows'))) do
    local its_kind = string.match(other, '^(.-)\n')
    -- Where ours is among several, those of mixed hardware joined us.
    if its_kind == kind then begun_on = nil break end
    begun_on = its_kind
  end
  if begun_on then return begun_on end
end
if slots == 0 then
  slots = tonumber(measured ~= '' and redis.call('HGET', SLOTS, measured) or '0')
elseif measured ~= '' then
  redis.call('HSET', SLOTS, measured, slots)
end
if slots > 0 then redis.call('HSET', key(id, 'rows'), field, slots) end
return slots
