"""What Redis does for ``RedisStore``, in Lua 5.1: each operation is one script, and one round trip.

Where things lie, below the base ``PREFIX:{SHARD}``, which is one slot of a cluster:

=====================  =======  =====================================================
``u:OWNER:UPLOAD``     hash     transfer id → record; "" → the owner's name
``o:OWNER``            zset     the owner's uploads by creation
``w:WORKER``           zset     members ``OWNER:UPLOAD`` that the worker receives
``due``                zset     members that wait, by when they expire
``leases``             zset     workers, by the end of their lease
``k:WORKER``           string   there while what the worker receives need not live longer
=====================  =======  =====================================================

OWNER and WORKER are hashed names, so that no name can hold a separator. A record is a head, which
the scripts read, and behind a newline the packed record, which they do not. What has no head of
version 1 is of a newer release, or nobody's, and is left as it is.

Source: Redis, "Scripting with Lua", and its library ``struct``.
"""

from typing import Final

__all__ = [
    "LIST",
    "LOAD",
    "OVERDUE",
    "RENEW",
    "SAVE",
]

_PRELUDE: Final = r"""
local base = KEYS[1]
local moment = redis.call('TIME')
local now = moment[1] + moment[2] / 1e6

local function head(value)
  local attempt, kind, worker, group, sequence, at = string.match(
    value, '^1\t(%d+)\t(%u)\t([^\t\n]*)\t([^\t\n]*)\t(%d+)\t([%d.]+)\n')
  if not attempt then return nil end
  return {attempt = tonumber(attempt), sequence = tonumber(sequence), kind = kind,
          at = tonumber(at), worker = worker, group = group}
end

-- Many arguments in one: each string behind its length. The driver sends them faster so.
local function strings(packed)
  local found, at, count = {}, 1, 0
  while at <= #packed do
    count = count + 1
    found[count], at = struct.unpack('>I4c0', packed, at)
  end
  return found
end

local function is_final(kind) return kind == 'C' or kind == 'D' or kind == 'S' end

-- Returns the heads of an upload by transfer, and all its fields; nil for what is no upload.
local function upload(member)
  local flat = redis.pcall('HGETALL', base .. ':u:' .. member)
  if flat.err then return nil end
  local heads = {}
  for i = 1, #flat, 2 do
    if flat[i] ~= '' then heads[flat[i]] = head(flat[i + 1]) end
  end
  return heads, flat
end

-- Returns whether the upload has ended and when, and else whether it waits and since when.
-- D is the server's word that an upload in many requests is whole, C that one request is.
local function decide(heads)
  local attempt, stopped, completed, waits = 0, nil, nil, nil
  local runs, pauses, is_whole = false, false, false
  for _, each in pairs(heads) do attempt = math.max(attempt, each.attempt) end
  for _, each in pairs(heads) do
    if each.attempt == attempt then
      if each.kind == 'S' then stopped = math.min(stopped or each.at, each.at)
      elseif is_final(each.kind) then
        completed = math.max(completed or each.at, each.at)
        is_whole = is_whole or each.kind == 'D'
      else
        runs = runs or each.kind == 'R'
        pauses = pauses or each.kind == 'P'
        if each.kind ~= 'R' then waits = math.max(waits or each.at, each.at) end
      end
    end
  end
  if is_whole then runs, pauses = false, false end
  local is_open = runs or pauses
  if stopped and (is_open or not completed or stopped < completed) then return stopped, nil end
  if runs then return nil, nil end
  if pauses then return nil, waits end
  if completed then return completed, nil end
  return nil, waits
end

-- Nothing lives for ever: each key lasts at least so long from its last use, and then is gone.
local function outlive(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

local function leases() return redis.call('ZRANGE', base .. ':leases', 0, -1, 'WITHSCORES') end
"""

SAVE: Final = (
    _PRELUDE
    + r"""
local ended_ms, open_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local waiting_s, newborn_s = tonumber(ARGV[4]), tonumber(ARGV[5])

local function advances(new, tid, heads)
  for other, each in pairs(heads) do
    if each.attempt > new.attempt then return false end
    if other == tid and each.attempt == new.attempt
       and (is_final(each.kind) or each.sequence >= new.sequence) then return false end
  end
  return true
end

-- The index forgets as fast as it learns, so that it stays small where nobody ever lists.
local function enlist(owner, id, created)
  local key = base .. ':o:' .. owner
  if redis.call('ZADD', key, 'NX', created, id) == 0 then return key end
  for _, any in ipairs(redis.call('ZRANDMEMBER', key, 3)) do
    if redis.call('EXISTS', base .. ':u:' .. owner .. ':' .. any) == 0 then
      redis.call('ZREM', key, any)
    end
  end
  return key
end

local function place(member, heads, before)
  local ended, waits = decide(heads)
  local left = {[before] = true}
  for _, each in pairs(heads) do left[each.worker] = true end
  if not ended then
    for _, each in pairs(heads) do
      if each.kind == 'R' then
        left[each.worker] = nil
        redis.call('ZADD', base .. ':w:' .. each.worker, 0, member)
        outlive(base .. ':w:' .. each.worker, open_ms)
        redis.call('ZADD', base .. ':leases', 'NX', now + newborn_s, each.worker)
        outlive(base .. ':leases', open_ms)
      end
    end
  end
  for worker in pairs(left) do
    if worker ~= '' then redis.call('ZREM', base .. ':w:' .. worker, member) end
  end
  if waits then
    redis.call('ZADD', base .. ':due', string.format('%.6f', waits + waiting_s), member)
    outlive(base .. ':due', open_ms)
  else
    redis.call('ZREM', base .. ':due', member)
  end
  return ended and ended_ms or open_ms
end

-- Most writes are of a transfer that went on, which changes nothing around it. That its record is
-- there says that no attempt is newer. Once in a while all is looked after, whatever was lost.
local function goes_on(key, tid, value)
  local same, new = string.match(value, '^(1\t%d+\tR\t[^\t\n]*\t[^\t\n]*\t)(%d+)')
  if not same or new % 16 == 0 then return false end
  local known = redis.pcall('HGET', key, tid)
  if type(known) ~= 'string' or string.sub(known, 1, #same) ~= same then return false end
  if tonumber(string.match(known, '^%d+', #same + 1)) >= tonumber(new) then return false end
  return redis.call('HSET', key, tid, value)
end

local function save(owner, name, id, tid, value, created)
  local member = owner .. ':' .. id
  local key = base .. ':u:' .. member
  if goes_on(key, tid, value) then return end
  local heads, flat = upload(member)
  if not heads then return end
  local new, before = head(value), ''
  for i = 1, #flat, 2 do
    if flat[i] == tid then
      if not heads[tid] and string.match(flat[i + 1], '^%d+\t') then return end
      before = heads[tid] and heads[tid].worker or ''
    end
  end
  if not advances(new, tid, heads) then return end
  for other, each in pairs(heads) do
    if each.attempt < new.attempt then
      redis.call('HDEL', key, other)
      if each.worker ~= '' then redis.call('ZREM', base .. ':w:' .. each.worker, member) end
      heads[other] = nil
    end
  end
  heads[tid] = new
  redis.call('HSET', key, tid, value, '', name)
  local ms = place(member, heads, before)
  redis.call('PEXPIRE', key, ms)
  outlive(enlist(owner, id, created), ms)
end

local rows, row, at, owner, name, id, tid, value, created = ARGV[1], string.rep('>I4c0', 6), 1
while at <= #rows do
  owner, name, id, tid, value, created, at = struct.unpack(row, rows, at)
  save(owner, name, id, tid, value, created)
end
return 1
"""
)

LOAD: Final = (
    _PRELUDE
    + r"""
local found = {}
for _, member in ipairs(strings(ARGV[1])) do
  local heads, flat = upload(member)
  if heads and #flat > 0 then found[#found + 1] = {member, flat} end
end
return {string.format('%.6f', now), leases(), found}
"""
)

LIST: Final = (
    _PRELUDE
    + r"""
local owner, cursor, limit, group, since = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local most, index = tonumber(ARGV[6]), base .. ':o:' .. owner

local function is_wanted(heads)
  if since ~= '' then
    local ended = decide(heads)
    if ended and ended < tonumber(since) then return false end
  end
  if group == '' then return true end
  for _, each in pairs(heads) do
    if each.group == group then return true end
  end
  return false
end

local rank = cursor ~= '' and redis.call('ZREVRANK', index, cursor)
local start, page, gone, further = rank and rank + 1 or 0, {}, {}, ''
local seen = redis.call('ZREVRANGE', index, start, start + most - 1)
for _, id in ipairs(seen) do
  local heads, flat = upload(owner .. ':' .. id)
  if not heads or #flat == 0 then
    gone[#gone + 1] = id
  elseif is_wanted(heads) then
    page[#page + 1] = {owner .. ':' .. id, flat}
    if #page == limit then further = id break end
  end
end
if further == '' and #seen == most then further = seen[most] end
for _, id in ipairs(gone) do
  if id ~= further then redis.call('ZREM', index, id) end
end
return {string.format('%.6f', now), leases(), page, further}
"""
)

RENEW: Final = (
    _PRELUDE
    + r"""
local worker, open_ms = ARGV[1], tonumber(ARGV[3])
local mine = base .. ':w:' .. worker
redis.call('ZADD', base .. ':leases', string.format('%.6f', now + ARGV[2]), worker)
outlive(base .. ':leases', open_ms)

-- What is received may be silent for longer than keys live. That is looked after once in a while.
if redis.call('SET', base .. ':k:' .. worker, '', 'NX', 'PX', math.ceil(open_ms / 4)) then
  for _, member in ipairs(redis.call('ZRANGE', mine, 0, -1)) do
    outlive(base .. ':u:' .. member, open_ms)
    outlive(base .. ':o:' .. string.match(member, '^[^:]*'), open_ms)
  end
  outlive(mine, open_ms)
end
return 1
"""
)

OVERDUE: Final = (
    _PRELUDE
    + r"""
local limit, again_s, found = tonumber(ARGV[1]), tonumber(ARGV[2]), {}

-- What is handed out comes again a while later, if nobody has ended it.
local function take(key)
  local members = redis.call(
    'ZRANGEBYSCORE', key, '-inf', string.format('%.6f', now), 'LIMIT', 0, limit - #found)
  for _, member in ipairs(members) do
    local heads, flat = upload(member)
    if heads and #flat > 0 then
      found[#found + 1] = {member, flat}
      redis.call('ZADD', key, string.format('%.6f', now + again_s), member)
    else
      redis.call('ZREM', key, member)
    end
  end
end

local dead = redis.call('ZRANGEBYSCORE', base .. ':leases', '-inf', string.format('%.6f', now))
local all = leases()
for _, worker in ipairs(dead) do
  if #found < limit then take(base .. ':w:' .. worker) end
  if redis.call('ZCARD', base .. ':w:' .. worker) == 0 then
    redis.call('ZREM', base .. ':leases', worker)
  end
end
if #found < limit then take(base .. ':due') end
return {string.format('%.6f', now), all, found}
"""
)
