-- Lets everything count no more that matches and is kept now.
--
-- ARGV[6]  `all`, or `t:` and a tag, or `p:` and a prefix
local VOIDS_MAX = 10000   -- tags and prefixes that are remembered, the newest; what is kept before them is void

count = count + 1
sequence = sequence + 1
note('sequence', sequence, 'count:' .. ARGV[2], count)
if ARGV[6] == 'all' then
  call('HSET', META, 'all', sequence)
  call('UNLINK', VOIDS, ORDER)
  return {'ok', count}
end
call('HSET', VOIDS, ARGV[6], sequence)
call('ZADD', ORDER, sequence, ARGV[6])
if string.sub(ARGV[6], 1, 2) == 'p:' then
  local length = #ARGV[6] - 2
  local lengths = call('HGET', VOIDS, 'lengths') or ''
  if not string.find(' ' .. lengths .. ' ', ' ' .. length .. ' ', 1, true) then
    call('HSET', VOIDS, 'lengths', lengths .. ' ' .. length)
  end
end
if call('ZCARD', ORDER) > VOIDS_MAX then
  local oldest, at = unpack(call('ZPOPMIN', ORDER))
  call('HDEL', VOIDS, oldest)
  call('HSET', META, 'all', math.max(all, tonumber(at)))
end
return {'ok', count}
