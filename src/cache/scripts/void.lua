-- Lets everything count no more that matches and is kept now.
--
-- ARGV[5]  `all`, or `t:` and a tag, or `p:` and a prefix
sequence = sequence + 1
if ARGV[5] == 'all' or call('HLEN', VOIDS) >= VOIDS_MAX then
  call('HSET', META, 'sequence', sequence, 'all', sequence)
  call('UNLINK', VOIDS)
else
  call('HSET', META, 'sequence', sequence)
  call('HSET', VOIDS, ARGV[5], sequence)
  if string.sub(ARGV[5], 1, 2) == 'p:' then
    local length = #ARGV[5] - 2
    local lengths = call('HGET', VOIDS, 'lengths') or ''
    if not string.find(' ' .. lengths .. ' ', ' ' .. length .. ' ', 1, true) then
      call('HSET', VOIDS, 'lengths', lengths .. ' ' .. length)
    end
  end
end
return {'ok', count}
