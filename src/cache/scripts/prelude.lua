-- What every script of the cache begins with: the fence, and what invalidations have made void.
--
-- KEYS[1]  meta: epoch, sequence of what is kept, sequence at the last loss of everything (all), and for each
--          node its newest connection (session) and how many of its writes were executed (count)
-- KEYS[2]  voids: for each tag (t:…) and prefix (p:…) the sequence at its invalidation, and the lengths of
--          prefixes (lengths)
-- KEYS[3]  order: the same tags and prefixes by sequence; those of earlier versions are not in it
-- KEYS[4]  value of a key: a header, tags, and what the home makes of it
-- KEYS[5]  result of a write, where it is about one
-- ARGV[1]  epoch of the caller; a lower one than the stored is refused
-- ARGV[2]  number of the caller
-- ARGV[3]  number of its connection; a lower one than the stored of the same epoch is refused
-- ARGV[4]  how many of its writes the caller knows to be executed; a lower stored count is a loss
-- ARGV[5]  1: goes through in a Redis without memory, too, since it keeps no value
-- ARGV[6..]  by script
--
-- Replies: {'fenced'}, or {'ok', count, …}.
local META, VOIDS, ORDER, VALUE, RESULT = unpack(KEYS)
local HEADER = '>ddddI4'    -- version, sequence, expiry (0: none), length of the tags
local HEADER_BYTES = 36
local call = redis.call

local epoch, session, known_count = tonumber(ARGV[1]), ARGV[1] .. ':' .. ARGV[3], tonumber(ARGV[4])
local meta = call('HMGET', META, 'epoch', 'sequence', 'all', 'session:' .. ARGV[2], 'count:' .. ARGV[2])
local newest_epoch, newest = string.match(meta[4] or '', '^(%d+):(%d+)$')
if epoch < tonumber(meta[1] or 0)
  or (newest_epoch == ARGV[1] and tonumber(ARGV[3]) < tonumber(newest)) then
  return {'fenced'}
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sequence, all, count = tonumber(meta[2] or 0), tonumber(meta[3] or 0), tonumber(meta[5] or 0)

-- Sets fields of the meta. Redis refuses for want of memory only while a script has written nothing, and a
-- removal is a write that it never refuses; what follows the first write is not refused either.
local function note(...)
  if ARGV[5] == '1' then
    call('HDEL', META, '')
  end
  call('HSET', META, ...)
end

if meta[1] ~= ARGV[1] or meta[4] ~= session then
  note('epoch', ARGV[1], 'session:' .. ARGV[2], session)
end
if not meta[2] or count < known_count then
  -- Nobody knows what is missing, so that nothing counts that is there. Microseconds are more than any
  -- sequence before.
  sequence = math.max(sequence + 1, time[1] * 1000000 + time[2])
  all, count = sequence, math.max(count, known_count)
  note('sequence', sequence, 'all', all, 'count:' .. ARGV[2], count)
end

-- Whether what was kept at this sequence has been invalidated since.
local function is_void(kept_at, key, tags)
  if kept_at <= all then
    return true
  end
  local fields = {'lengths'}
  for _, tag in ipairs(tags) do
    fields[#fields + 1] = 't:' .. tag
  end
  local found = call('HMGET', VOIDS, unpack(fields))
  local prefixes = {}
  for length in string.gmatch(found[1] or '', '%d+') do
    prefixes[#prefixes + 1] = 'p:' .. string.sub(key, 1, tonumber(length))
  end
  if #prefixes > 0 then
    for _, at in ipairs(call('HMGET', VOIDS, unpack(prefixes))) do
      found[#found + 1] = at
    end
  end
  for i = 2, #found do
    if found[i] and kept_at <= tonumber(found[i]) then
      return true
    end
  end
  return false
end

