-- Changes settings of a topic and tells those in force.
--
-- ARGV: count, then names and values; an empty value puts the default back
-- Result: {'ok', operation sequence, sequence, bytes, names and values}
local change_count = take_number()
if change_count > 0 then
  touch()
end
for _ = 1, change_count do
  local name, value = take(), take()
  if value == '' then
    call('HDEL', SETTINGS, name)
  else
    call('HSET', SETTINGS, name, value)
  end
end
return {'ok', opseq, seq, kept_bytes, call('HGETALL', SETTINGS)}
