-- Returns the time of the server, all leases, one page of an owner's uploads, newest first, and the
-- cursor of the next page ('' after the last one). At most `max_scanned` uploads are read, so a page
-- may hold fewer than `limit`. Ids whose upload has expired are removed from the index.

local owner, cursor, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local group, ended_since, max_scanned = ARGV[4], ARGV[5], tonumber(ARGV[6])
local index = base .. ':o:' .. owner

local function matches(headers)
  if ended_since ~= '' then
    local ended_at = decide(headers)
    if ended_at and ended_at < tonumber(ended_since) then return false end
  end
  if group == '' then return true end
  for _, header in pairs(headers) do
    if header.group == group then return true end
  end
  return false
end

local rank = cursor ~= '' and call_index('ZREVRANK', index, cursor)
local start, page, expired, next_cursor = rank and rank + 1 or 0, {}, {}, ''
local scanned = call_index('ZREVRANGE', index, start, start + max_scanned - 1)
for _, upload_id in ipairs(scanned) do
  local member = owner .. ':' .. upload_id
  local headers, fields = read_upload(member)
  if not headers or #fields == 0 then
    expired[#expired + 1] = upload_id
  elseif matches(headers) then
    page[#page + 1] = {member, fields}
    if #page == limit then next_cursor = upload_id break end
  end
end
if next_cursor == '' and #scanned == max_scanned then next_cursor = scanned[max_scanned] end
for _, upload_id in ipairs(expired) do
  if upload_id ~= next_cursor then call_index('ZREM', index, upload_id) end
end
return {string.format('%.6f', now), read_leases(), page, next_cursor}
