-- Keeps what a write leaves. Only what is newer than what is there: a repeat changes nothing.
--
-- ARGV[6], ARGV[7]  version
-- ARGV[8]           what the home makes of the value; empty: there is none any more
-- ARGV[9]           what is left of its lifetime in ms; 0: it has none
-- ARGV[10]          for how many ms it is kept at most
-- ARGV[11]          result of the write; empty: it had no id
-- ARGV[12]          for how many ms the result is kept
-- ARGV[13..]        tags of the value
local version_epoch, version_sequence = tonumber(ARGV[6]), tonumber(ARGV[7])
local header = call('GETRANGE', VALUE, 0, HEADER_BYTES - 1)
if #header == HEADER_BYTES then
  local kept_epoch, kept_sequence = struct.unpack('>dd', header)
  if kept_epoch > version_epoch or (kept_epoch == version_epoch and kept_sequence >= version_sequence) then
    return {'ok', count}
  end
end
count = count + 1
sequence = sequence + 1
-- First, so that a Redis without memory refuses all of it or nothing.
note('sequence', sequence, 'count:' .. ARGV[2], count)
if RESULT then
  call('SET', RESULT, ARGV[11], 'PX', ARGV[12])
end
if ARGV[8] == '' then
  call('UNLINK', VALUE)
else
  local left = tonumber(ARGV[9])
  local expiry = left > 0 and now + left or 0
  local tags = cmsgpack.pack({unpack(ARGV, 13)})
  local packed = struct.pack(HEADER, version_epoch, version_sequence, sequence, expiry, #tags)
  call('SET', VALUE, packed .. tags .. ARGV[8], 'PX', ARGV[10])
end
return {'ok', count}
