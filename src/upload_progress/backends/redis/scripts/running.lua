-- Returns the time of the server, all leases, and up to `limit` uploads that a worker receives.
-- ARGV: the worker, the limit.

local uploads = {}
local members = call_index('ZRANGE', base .. ':w:' .. ARGV[1], 0, tonumber(ARGV[2]) - 1)
for _, member in ipairs(members) do
  local headers, fields = read_upload(member)
  if headers and #fields > 0 then uploads[#uploads + 1] = {member, fields} end
end
return {string.format('%.6f', now), read_leases(), uploads}
