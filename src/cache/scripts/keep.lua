-- Keeps what a write leaves. Only what is newer than what is there: a repeat changes nothing.
--
-- ARGV[5], ARGV[6]  version
-- ARGV[7]           what the home makes of the value; empty: there is none any more
-- ARGV[8]           what is left of its lifetime in ms; 0: it has none
-- ARGV[9]           for how many ms it is kept at most
-- ARGV[10]          result of the write; empty: it had no id
-- ARGV[11]          for how many ms the result is kept
-- ARGV[12..]        tags of the value
local version_epoch, version_sequence = tonumber(ARGV[5]), tonumber(ARGV[6])
local header = call('GETRANGE', VALUE, 0, HEADER_BYTES - 1)
if #header == HEADER_BYTES then
  local kept_epoch, kept_sequence = struct.unpack('>dd', header)
  if kept_epoch > version_epoch or (kept_epoch == version_epoch and kept_sequence >= version_sequence) then
    return {'ok', count}
  end
end
-- What a Redis without memory refuses comes first, so that nothing is done by halves.
if RESULT then
  call('SET', RESULT, ARGV[10], 'PX', ARGV[11])
end
if ARGV[7] == '' then
  -- A removal frees memory, and is done also where it cannot be counted.
  local counted = redis.pcall('HSET', META, 'count:' .. ARGV[2], count + 1)
  if type(counted) == 'number' then
    count = count + 1
  end
  call('UNLINK', VALUE)
else
  count = count + 1
  sequence = sequence + 1
  call('HSET', META, 'sequence', sequence, 'count:' .. ARGV[2], count)
  local left = tonumber(ARGV[8])
  local expiry = left > 0 and now + left or 0
  local tags = cmsgpack.pack({unpack(ARGV, 12)})
  local packed = struct.pack(HEADER, version_epoch, version_sequence, sequence, expiry, #tags)
  call('SET', VALUE, packed .. tags .. ARGV[7], 'PX', ARGV[9])
end
return {'ok', count}
