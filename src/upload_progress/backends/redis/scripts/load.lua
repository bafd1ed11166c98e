-- Returns the time of the server, all leases, and the fields of the uploads that exist.
-- ARGV: the uploads as OWNER:UPLOAD, packed.

local uploads = {}
for _, member in ipairs(unpack_strings(ARGV[1])) do
  local headers, fields = read_upload(member)
  if headers and #fields > 0 then uploads[#uploads + 1] = {member, fields} end
end
return {string.format('%.6f', now), read_leases(), uploads}
