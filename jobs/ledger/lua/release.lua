-- Gives a shard back unfinished. ARGV: job, incarnation, shard, attempt. Returns 1, or -1 when it was lost
if not holds(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return -1 end
put_back(ARGV[1], ARGV[3], clock())
return 1
