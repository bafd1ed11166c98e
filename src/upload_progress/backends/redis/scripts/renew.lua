-- Renews the lease of a worker.
-- ARGV: the worker, the duration of the lease in seconds, the lifetime of open uploads in ms.

local worker, lease_seconds, open_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local received = base .. ':w:' .. worker
local at = call_index('HGET', base .. ':renewals', 'at')
local saved_at = string.format('%.6f', now)
if not at or now - tonumber(at) > lease_seconds / 3 then
  call_index('HSET', base .. ':renewals', 'resumed', saved_at)
end
call_index('HSET', base .. ':renewals', 'at', saved_at, 'seconds', lease_seconds)
call_index('ZADD', base .. ':leases', string.format('%.6f', now + lease_seconds), worker)
extend_ttl(base .. ':leases', open_ms)
extend_ttl(base .. ':renewals', open_ms)

-- An upload that is received may be silent for longer than keys live. The time to live of what the
-- worker receives is extended four times in that time.
if redis.call('SET', base .. ':k:' .. worker, '', 'NX', 'PX', math.ceil(open_ms / 4)) then
  for _, member in ipairs(call_index('ZRANGE', received, 0, -1)) do
    extend_ttl(base .. ':u:' .. member, open_ms)
    extend_ttl(base .. ':o:' .. string.match(member, '^[^:]*'), open_ms)
  end
  extend_ttl(received, open_ms)
end
return 1
