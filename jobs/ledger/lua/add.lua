-- Adds shards to an open job. The cursor keeps a second submitter out: it must be where the last call left it.
-- Returns 'added', 'gone', 'ending', 'closed' or 'moved'
-- A user without this key, whom an ACL file of an earlier version has, fails before anything is written.
redis.call('EXISTS', CLAIMABLE)
if not is_current(job_id, incarnation) then return 'gone' end
local job = redis.call('HMGET', key(job_id), 'state', 'cursor')
if ending_of(job_id) ~= '' then return 'ending' end
if job[1] ~= 'open' then return 'closed' end
if tonumber(job[2] or '') ~= addition.cursor then return 'moved' end
local images, waiting = 0, redis.call('LLEN', key(job_id, 'ready'))
for _, shard in ipairs(addition.shards) do
  if number(job_id, 'first_shard') < 0 then redis.call('HSET', key(job_id), 'first_shard', shard.number) end
  redis.call('HSET', key(job_id, 'shards'), shard.number, shard.blob)
  redis.call('RPUSH', key(job_id, 'ready'), shard.number)
  redis.call('HINCRBY', key(job_id), 'shards', 1)
  images = images + shard.images
end
if images > 0 then
  redis.call('HINCRBY', key(job_id), 'total', images)
  redis.call('HINCRBY', key(job_id), 'left', images)
  if waiting == 0 then redis.call('HSET', key(job_id), 'waiting_since', clock()) end
end
redis.call('HSET', key(job_id), 'cursor', addition.new_cursor)
redis.call('HINCRBY', key(job_id), 'held', addition.held)
if addition.seal then
  redis.call('HSET', key(job_id), 'state', 'sealed')
  settle(job_id)
else
  keep_place(job_id)
end
return 'added'
