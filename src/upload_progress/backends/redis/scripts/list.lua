-- Returns the time of the server, all leases, one page of an owner's uploads, newest first, each with
-- its time of creation, and the last upload that was read, if more follow: its time of creation and id.
-- At most `max_scanned` uploads are read, so a page may hold fewer than `limit`. Ids whose upload has
-- expired are removed from the index.
-- ARGV: the owner; time of creation and id of the upload after which the page begins, which may have
-- been deleted, or ''; the maximum number of uploads; the group, or ''; within how many seconds an
-- upload has ended, or ''.

local owner, created_at, after_id, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local group, ended_within, max_scanned = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local index = base .. ':o:' .. owner

local function matches(upload_id, headers)
  if ended_within and decide(headers) then
    -- When the end was saved, by the clock of this server.
    local saved_at = call_index('ZSCORE', base .. ':e:' .. owner, upload_id)
    if saved_at and tonumber(saved_at) < now - ended_within then return false end
  end
  if group == '' then return true end
  for _, header in pairs(headers) do
    if header.group == group then return true end
  end
  return false
end

-- Returns how many uploads lie before the page. Those of the same time are in the order of their ids.
local function count_before()
  if created_at == '' then return 0 end
  local score = call_index('ZSCORE', index, after_id)
  if score and tonumber(score) == tonumber(created_at) then
    return call_index('ZREVRANK', index, after_id) + 1
  end
  local before = call_index('ZCOUNT', index, '(' .. created_at, '+inf')
  local same = call_index('ZCOUNT', index, created_at, created_at)
  for _, upload_id in ipairs(call_index('ZREVRANGE', index, before, before + same - 1)) do
    if upload_id > after_id then before = before + 1 end
  end
  return before
end

local start, page, expired, last = count_before(), {}, {}, {}
local scanned = call_index('ZREVRANGE', index, start, start + max_scanned - 1, 'WITHSCORES')
for i = 1, #scanned, 2 do
  local upload_id, score = scanned[i], scanned[i + 1]
  local member = owner .. ':' .. upload_id
  local headers, fields = read_upload(member)
  if not headers or #fields == 0 then
    expired[#expired + 1] = upload_id
  elseif matches(upload_id, headers) then
    page[#page + 1] = {member, fields, score}
    if #page == limit then last = {score, upload_id} break end
  end
end
if #last == 0 and #scanned == 2 * max_scanned then
  last = {scanned[#scanned], scanned[#scanned - 1]}
end
for _, upload_id in ipairs(expired) do call_index('ZREM', index, upload_id) end
return {string.format('%.6f', now), read_leases(), page, last}
