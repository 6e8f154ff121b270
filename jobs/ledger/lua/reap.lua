-- Puts back every shard whose lease has run out. Returns how many
return reap(clock())
