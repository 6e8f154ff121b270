-- Puts back every shard whose lease has run out, and what jobs lack of what all share. Returns how many shards
even_when_full()
local now = clock()
relist_one()
local count = reap(now)
sweep(now)
return count
