-- Stops or resumes pops of a topic.
--
-- ARGV: 1 to pause, 0 to resume
-- Result: {'ok', operation sequence, sequence, bytes, 1 if that was a change}
local pause = take() == '1'
local changed = pause ~= (paused and true or false)
if changed then
  touch()
  if pause then
    call('HSET', META, 'paused', '1')
  else
    call('HDEL', META, 'paused')
  end
end
return {'ok', opseq, seq, kept_bytes, changed and 1 or 0}
