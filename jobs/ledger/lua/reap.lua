-- Puts back every shard whose lease has run out, and places that jobs lack. Returns how many shards
local now = clock()
local count = reap(now)
sweep(now)
return count
