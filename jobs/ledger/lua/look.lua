-- Reads jobs for their status, many in one call. ARGV: the prefix of a job's key, the key of active jobs, job ids.
-- Returns a text of JSON for each: its hash, how many shards wait, its leases, refusals and broken shards, and its
-- place among the active jobs; null for what is not there, the error's text for a key of another kind.
-- It runs without damage.lua and prelude.lua, and writes nothing: so it runs on a Redis that is full, too.
local function answer_of(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) ~= 'table' or not answer.err then return answer or cjson.null end
  if not string.find(answer.err, 'WRONGTYPE', 1, true) then error(answer.err) end
  return answer.err
end

local function table_of(name)
  local fields, found = answer_of('HGETALL', name), {}
  if type(fields) == 'string' then return fields end
  for i = 1, #fields, 2 do found[fields[i]] = fields[i + 1] end
  return found
end

local looks = {}
for i = 3, #ARGV do
  local job = ARGV[1] .. ARGV[i]
  looks[i - 2] = cjson.encode({table_of(job), answer_of('LLEN', job .. ':ready'), table_of(job .. ':leased'),
    table_of(job .. ':refusals'), table_of(job .. ':broken'), answer_of('ZSCORE', ARGV[2], ARGV[i])})
end
return looks
