-- Adds shards to an open job. `cursor` fences a second submitter: it must be where the last one stopped.
-- ARGV: job, incarnation, cursor before, cursor after, seal (0 or 1), held, then shard number, images, blob …
-- Returns 'added', 'gone', 'ending', 'closed' or 'moved'
local id, incarnation = ARGV[1], ARGV[2]
if not is_current(id, incarnation) then return 'gone' end
local job = redis.call('HMGET', key(id), 'state', 'ending', 'cursor')
if job[2] ~= '' then return 'ending' end
if job[1] ~= 'open' then return 'closed' end
if job[3] ~= ARGV[3] then return 'moved' end
local images, waiting = 0, redis.call('LLEN', key(id, 'ready'))
for i = 7, #ARGV, 3 do
  if number(id, 'first_shard') < 0 then redis.call('HSET', key(id), 'first_shard', ARGV[i]) end
  redis.call('HSET', key(id, 'shards'), ARGV[i], ARGV[i + 2])
  redis.call('RPUSH', key(id, 'ready'), ARGV[i])
  redis.call('HINCRBY', key(id), 'shards', 1)
  images = images + tonumber(ARGV[i + 1])
end
if images > 0 then
  redis.call('HINCRBY', key(id), 'total', images)
  redis.call('HINCRBY', key(id), 'left', images)
  if waiting == 0 then redis.call('HSET', key(id), 'waiting_since', clock()) end
end
redis.call('HSET', key(id), 'cursor', ARGV[4])
redis.call('HINCRBY', key(id), 'held', ARGV[6])
if ARGV[5] == '1' then
  redis.call('HSET', key(id), 'state', 'sealed')
  settle(id)
end
return 'added'
