-- Returns the time of the server, all leases, up to `limit` open uploads after a member, in the order of
-- members, and the last member that was read, or nothing if there are no more.
-- ARGV: the member, empty for the first page; the limit.

local open, limit, uploads = base .. ':open', tonumber(ARGV[2]), {}
local start = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local members = call_index('ZRANGEBYLEX', open, start, '+', 'LIMIT', 0, limit)
for _, member in ipairs(members) do
  local headers, fields = read_upload(member)
  if headers and #fields > 0 then
    uploads[#uploads + 1] = {member, fields}
  else
    call_index('ZREM', open, member)
  end
end
local last = #members == limit and members[limit] or ''
return {string.format('%.6f', now), read_leases(), uploads, last}
