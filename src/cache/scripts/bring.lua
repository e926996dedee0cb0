-- Says what there is of a key, and what became of a write.
--
-- ARGV[6]  the key
--
-- Replies {'ok', count, value or nothing, what is left of its lifetime in ms or -1, result or nothing, for how
-- many ms it is kept}.
local value, left = false, -1
local kept = call('GET', VALUE)
if kept then
  local _, _, kept_at, expiry, length = struct.unpack(HEADER, kept)
  local tags = cmsgpack.unpack(string.sub(kept, HEADER_BYTES + 1, HEADER_BYTES + length))
  if is_void(kept_at, ARGV[6], tags) then
    call('UNLINK', VALUE)
  else
    value = string.sub(kept, HEADER_BYTES + length + 1)
    if expiry > 0 then
      left = math.max(expiry - now, 0)
    end
  end
end
local result = RESULT and call('GET', RESULT) or false
return {'ok', count, value, left, result, result and call('PTTL', RESULT) or 0}
