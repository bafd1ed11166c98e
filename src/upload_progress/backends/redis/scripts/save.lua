-- Saves a batch of records. A record that is not newer than the stored one changes nothing: returns
-- the numbers of these, counted from 1.
-- ARGV: the records, packed; retention times; limits for each owner; the workers, each followed by the
-- lease that it has until it renews it, packed. With a limit of pending uploads, which is not 0,
-- returns 0 if the owner of the first record has so many, and saves nothing.

local call, pcall, sub, match, type = redis.call, redis.pcall, string.sub, string.match, type

local ended_ms, open_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local waiting_seconds = tonumber(ARGV[4])
local ended_per_owner, waiting_per_owner, max_pending = string.match(ARGV[5], '^(%d+) (%d+) (%d+)$')
ended_per_owner, waiting_per_owner = tonumber(ended_per_owner), tonumber(waiting_per_owner)
max_pending = tonumber(max_pending)
local saved_at = string.format('%.6f', now)
local lease_seconds, leases = {}, unpack_strings(ARGV[6])
for i = 1, #leases, 2 do lease_seconds[leases[i]] = tonumber(leases[i + 1]) end

-- The same rule as supersedes() in upload_progress.backends.store_records.
local function supersedes(new, transfer_id, headers)
  for other, header in pairs(headers) do
    if header.attempt > new.attempt then return false end
    if other == transfer_id and header.attempt == new.attempt
       and (is_final(header.code) or header.sequence >= new.sequence) then return false end
  end
  return true
end

-- Adds an upload to the index of its owner. For each new upload three random members are checked
-- and removed if their upload has expired, so that the index stays small without ever being listed.
-- Its position is that of its newest attempt, and there of the record that was created first.
local function add_to_owner_index(owner, upload_id, created_at, is_new_attempt)
  local key = base .. ':o:' .. owner
  local added = is_new_attempt and call_index('ZADD', key, created_at, upload_id)
    or call_index('ZADD', key, 'LT', created_at, upload_id)
  if added == 0 then return key end
  for _, member in ipairs(call_index('ZRANDMEMBER', key, 3)) do
    if redis.call('EXISTS', base .. ':u:' .. owner .. ':' .. member) == 0 then
      call_index('ZREM', key, member)
    end
  end
  return key
end

-- Removes the oldest members beyond `limit` from a set, and returns them.
local function pop_excess(key, limit)
  local excess, members = call_index('ZCARD', key) - limit, {}
  if excess <= 0 then return members end
  local popped = call_index('ZPOPMIN', key, excess)
  for i = 1, #popped, 2 do members[#members + 1] = popped[i] end
  return members
end

-- Puts an upload into the set of its owner's ended or waiting uploads. Of too many, the oldest ended
-- ones are deleted, and the oldest waiting ones are due.
local function limit_owner(owner, upload_id, has_ended, is_waiting)
  local ended, waiting = base .. ':e:' .. owner, base .. ':p:' .. owner
  if not has_ended then call_index('ZREM', ended, upload_id) end
  if not is_waiting then call_index('ZREM', waiting, upload_id) end
  if has_ended then
    call_index('ZREMRANGEBYSCORE', ended, '-inf', string.format('%.6f', now - ended_ms / 1000))
    call_index('ZADD', ended, saved_at, upload_id)
    extend_ttl(ended, ended_ms)
    for _, excess in ipairs(pop_excess(ended, ended_per_owner)) do
      redis.call('DEL', base .. ':u:' .. owner .. ':' .. excess)
      call_index('ZREM', base .. ':o:' .. owner, excess)
    end
  elseif is_waiting then
    call_index('ZADD', waiting, saved_at, upload_id)
    extend_ttl(waiting, open_ms)
    for _, excess in ipairs(pop_excess(waiting, waiting_per_owner)) do
      call_index('ZADD', base .. ':due', saved_at, owner .. ':' .. excess)
    end
  end
end

-- Puts an upload into the set of its owner's pending uploads, or removes it there.
local function update_pending(owner, upload_id, headers, is_waiting)
  local pending, is_pending = base .. ':a:' .. owner, is_waiting
  for _, header in pairs(headers) do is_pending = is_pending and header.code == 'N' end
  if is_pending then
    call_index('ZADD', pending, string.format('%.6f', now + waiting_seconds), upload_id)
    extend_ttl(pending, open_ms)
  else
    call_index('ZREM', pending, upload_id)
  end
end

-- An index whose uploads have all ended expires with the last of them. The uploads that were created
-- first are checked, as they expire first, so that the index has as many members as there are uploads.
local function shorten_owner_index(owner)
  local index = base .. ':o:' .. owner
  for _, member in ipairs(call_index('ZRANGE', index, 0, 2)) do
    if redis.call('EXISTS', base .. ':u:' .. owner .. ':' .. member) == 0 then
      call_index('ZREM', index, member)
    end
  end
  if call_index('ZCARD', index) <= call_index('ZCARD', base .. ':e:' .. owner) then
    redis.call('PEXPIRE', index, ended_ms)
  end
end

-- Puts an upload into the sets of the workers that receive it, or into the set of waiting uploads,
-- and takes it out of the others. Returns the time to live of its records in milliseconds, whether it
-- has ended, and whether it waits. The worker of `new` gets a lease, unless it has one already; the
-- others have theirs.
local function update_indexes(member, headers, previous_worker, new)
  local has_ended, is_waiting = decide(headers)
  local idle_workers = {[previous_worker] = true}
  for _, header in pairs(headers) do idle_workers[header.worker] = true end
  if not has_ended then
    for _, header in pairs(headers) do
      if header.code == 'R' then
        idle_workers[header.worker] = nil
        call_index('ZADD', base .. ':w:' .. header.worker, 0, member)
        extend_ttl(base .. ':w:' .. header.worker, open_ms)
        if header == new then
          local until_seconds = now + lease_seconds[header.worker]
          call_index('ZADD', base .. ':leases', 'NX', until_seconds, header.worker)
        end
        extend_ttl(base .. ':leases', open_ms)
      end
    end
  end
  for worker in pairs(idle_workers) do
    if worker ~= '' then call_index('ZREM', base .. ':w:' .. worker, member) end
  end
  if has_ended then
    call_index('ZREM', base .. ':open', member)
  else
    call_index('ZADD', base .. ':open', 0, member)
    extend_ttl(base .. ':open', open_ms)
  end
  if is_waiting then
    -- By the clock of this server: that of the worker may be wrong.
    local expires_at = string.format('%.6f', now + waiting_seconds)
    call_index('ZADD', base .. ':due', expires_at, member)
    extend_ttl(base .. ':due', open_ms)
  else
    call_index('ZREM', base .. ':due', member)
  end
  return has_ended and ended_ms or open_ms, has_ended, is_waiting
end

-- Most writes only continue a running transfer, which changes no index: attempt, state, worker and
-- group are the same, and the sequence is higher. The stored record proves that no attempt is newer.
local function update_in_place(key, transfer_id, value, same_bytes, sequence)
  local stored = pcall('HGET', key, transfer_id)
  if type(stored) ~= 'string' or sub(stored, 1, same_bytes) ~= sub(value, 1, same_bytes)
     or tonumber(match(stored, '^%d+', same_bytes + 1)) >= sequence then return false end
  return call('HSET', key, transfer_id, value)
end

-- Returns whether there were any.
local function drop_older_attempts(key, member, attempt, headers)
  local found = false
  for transfer_id, header in pairs(headers) do
    if header.attempt < attempt then
      redis.call('HDEL', key, transfer_id)
      if header.worker ~= '' then call_index('ZREM', base .. ':w:' .. header.worker, member) end
      headers[transfer_id] = nil
      found = true
    end
  end
  return found
end

-- A stored value with a version but without a header that can be read is of a newer release.
local function is_of_newer_release(fields, headers, transfer_id)
  for i = 1, #fields, 2 do
    if fields[i] == transfer_id then
      return not headers[transfer_id] and string.match(fields[i + 1], '^%d+\t') ~= nil
    end
  end
  return false
end

-- Saves one record in the full way; returns whether it changed anything.
local function save(member, owner_name, transfer_id, value, created_at)
  local owner, upload_id = match(member, '^([^:]*):(.*)$')
  local key = base .. ':u:' .. member
  local headers, fields = read_upload(member)
  if not headers or is_of_newer_release(fields, headers, transfer_id) then return false end
  local new = parse_header(value)
  local previous_worker = headers[transfer_id] and headers[transfer_id].worker or ''
  if not supersedes(new, transfer_id, headers) then return false end
  local is_new_attempt = drop_older_attempts(key, member, new.attempt, headers)
  headers[transfer_id] = new
  redis.call('HSET', key, transfer_id, value, '', owner_name)
  local ms, has_ended, is_waiting = update_indexes(member, headers, previous_worker, new)
  redis.call('PEXPIRE', key, ms)
  extend_ttl(add_to_owner_index(owner, upload_id, created_at, is_new_attempt), ms)
  limit_owner(owner, upload_id, has_ended, is_waiting)
  update_pending(owner, upload_id, headers, is_waiting)
  if has_ended then shorten_owner_index(owner) end
  return true
end

if max_pending > 0 then
  local owner = match(struct.unpack('>I4c0', ARGV[1]), '^[^:]*')
  if call_index('ZCOUNT', base .. ':a:' .. owner, saved_at, '+inf') >= max_pending then return 0 end
end
local refused, rows, number, position, uploads = {}, ARGV[1], 0, 1, base .. ':u:'
local member, transfer_id, value, same_bytes, sequence, created_at, owner_bytes
while position <= #rows do
  member, transfer_id, value, same_bytes, sequence, created_at, owner_bytes, position =
    struct.unpack('>I4c0I4c0I4c0I4I8dI4', rows, position)
  number = number + 1
  if same_bytes == 0
     or not update_in_place(uploads .. member, transfer_id, value, same_bytes, sequence) then
    local owner_name = sub(rows, position, position + owner_bytes - 1)
    if not save(member, owner_name, transfer_id, value, string.format('%.6f', created_at)) then
      refused[#refused + 1] = number
    end
  end
  position = position + owner_bytes
end
return refused
