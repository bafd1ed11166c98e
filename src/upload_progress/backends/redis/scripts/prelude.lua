-- Shared by all scripts: put in front of each of them. Redis runs Lua 5.1 with the library `struct`.
-- Source: Redis documentation, "Scripting with Lua" and "Redis Lua API reference".

local base = KEYS[1]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

-- Calls a command on the key of an index. Its name belongs to this library: a key of another type
-- under that name is deleted, so that it does not stop the batches of everybody.
local function call_index(command, key, ...)
  local result = redis.pcall(command, key, ...)
  if type(result) ~= 'table' or not result.err then return result end
  if string.find(result.err, 'WRONGTYPE', 1, true) then redis.call('DEL', key) end
  return redis.call(command, key, ...)
end

-- Returns the header of a stored record, or nil if its version is not 1.
local function parse_header(value)
  local attempt, code, worker, group, sequence = string.match(
    value, '^1\t(%d+)\t(%u)\t([^\t\n]*)\t([^\t\n]*)\t(%d+)\t[%d.]+\n')
  if not attempt then return nil end
  return {attempt = tonumber(attempt), sequence = tonumber(sequence), code = code,
          worker = worker, group = group}
end

-- Splits one argument into strings, each preceded by its length: many short arguments would take
-- the driver longer to send.
local function unpack_strings(packed)
  local strings, position, count = {}, 1, 0
  while position <= #packed do
    count = count + 1
    strings[count], position = struct.unpack('>I4c0', packed, position)
  end
  return strings
end

local function is_final(code) return code == 'C' or code == 'D' or code == 'S' end

-- Returns the headers of an upload by transfer id, and all fields of its hash; nil if the key has
-- another type.
local function read_upload(member)
  local fields = redis.pcall('HGETALL', base .. ':u:' .. member)
  if fields.err then return nil end
  local headers = {}
  for i = 1, #fields, 2 do
    if fields[i] ~= '' then headers[fields[i]] = parse_header(fields[i + 1]) end
  end
  return headers, fields
end

-- Derives from the records of the newest attempt whether an upload has ended, and whether it waits,
-- by the rules of upload_progress._model.fold.
local function decide(headers)
  local attempt, found = 0, {}
  for _, header in pairs(headers) do attempt = math.max(attempt, header.attempt) end
  for _, header in pairs(headers) do
    if header.attempt == attempt then found[header.code] = true end
  end
  if found.S or found.D then return true, false end
  if found.R then return false, false end
  if found.P then return false, true end
  if found.C then return true, false end
  return false, found.N == true
end

-- Extends the time to live of a key to at least `ms` milliseconds; never shortens it.
local function extend_ttl(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

-- Returns whether no worker has renewed its lease recently, and the earliest time at which a lease can
-- run out: a full lease after the renewals have begun again. Until then, that is a full lease from now.
-- The same rule as in upload_progress.backends.lease_table.
local function read_renewals()
  local at, seconds, resumed = unpack(
    call_index('HMGET', base .. ':renewals', 'at', 'seconds', 'resumed'))
  at, seconds, resumed = tonumber(at), tonumber(seconds or 0), tonumber(resumed or 0)
  local is_paused = not at or now - at > seconds / 3
  return is_paused, (is_paused and now or resumed) + seconds
end

-- Returns all workers, each followed by the end of its lease.
local function read_leases()
  local leases = call_index('ZRANGE', base .. ':leases', 0, -1, 'WITHSCORES')
  local _, earliest = read_renewals()
  for i = 2, #leases, 2 do
    leases[i] = string.format('%.6f', math.max(tonumber(leases[i]), earliest))
  end
  return leases
end
