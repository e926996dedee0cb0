-- The end of a batch.
-- The next instant at which time alone makes a message ready; 0 if there is none.
local function next_due()
  if is_stuck then
    return now
  end
  local first = 0
  for _, key in ipairs({DELAYED, LEASED}) do
    local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    local at = tonumber(head[2])
    if at and (first == 0 or at < first) then
      first = at
    end
  end
  return first
end

return {'ok', opseq, seq, kept_bytes, now_text, pop_count > 0 and text(next_due()) or '0',
  ready_left, pops_left, paused and 1 or 0, ack_results, nack_results, extend_results, push_results, deadlines, popped,
  buried, some_due and 1 or 0, text(now - clock)}
