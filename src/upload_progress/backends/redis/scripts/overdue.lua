-- Returns the time of the server, all leases, and up to `limit` uploads that a dead worker received
-- or that have waited too long. An upload that was returned is returned again only after
-- `retry_seconds`, and only if no worker has ended it until then.

local limit, retry_seconds, uploads = tonumber(ARGV[1]), tonumber(ARGV[2]), {}

local function claim(key)
  local members = call_index(
    'ZRANGEBYSCORE', key, '-inf', string.format('%.6f', now), 'LIMIT', 0, limit - #uploads)
  for _, member in ipairs(members) do
    local headers, fields = read_upload(member)
    if headers and #fields > 0 then
      uploads[#uploads + 1] = {member, fields}
      call_index('ZADD', key, string.format('%.6f', now + retry_seconds), member)
    else
      call_index('ZREM', key, member)
    end
  end
end

local dead, is_paused, earliest = {}, read_renewals()
if not is_paused and earliest <= now then
  dead = call_index('ZRANGEBYSCORE', base .. ':leases', '-inf', string.format('%.6f', now))
end
-- Read before the leases of workers without uploads are removed.
local leases = read_leases()
for _, worker in ipairs(dead) do
  if #uploads < limit then claim(base .. ':w:' .. worker) end
  if call_index('ZCARD', base .. ':w:' .. worker) == 0 then
    call_index('ZREM', base .. ':leases', worker)
  end
end
if #uploads < limit then claim(base .. ':due') end
return {string.format('%.6f', now), leases, uploads}
