-- Returns how many claims a worker would find now, as far as `enough`
even_when_full()
local now, count = clock(), 0
for set, model in pairs(claimable_sets()) do
  if may_take(set, model, models) then
    walk(set, worker, now, nil, function(job)
      count = count + (job.kind == 'finish' and 1 or job.ready)
      return count >= enough
    end)
  end
  if count >= enough then return enough end
end
return count
