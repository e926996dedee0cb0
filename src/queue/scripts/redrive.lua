-- Makes dead messages ready again, in this topic, with no failures and no deliveries.
--
-- ARGV: 1 for a dry run, most messages, text that the last failure must contain or '', dead since
--   (ms, 0 for ever), ms between two messages that become ready or 0, count of sequence numbers or 0
--   for all, the numbers
-- Result: {'ok', operation sequence, sequence, bytes, moved, dead that are left}
local dry, most, contains, since, spacing, chosen_count =
  take() == '1', take_number(), take(), take_number(), take_number(), take_number()
local candidates = {}
if chosen_count > 0 then
  for _ = 1, chosen_count do
    candidates[#candidates + 1] = take()
  end
else
  candidates = call('ZRANGEBYSCORE', DEAD, since, '+inf')
end
local moved = 0
for _, id in ipairs(candidates) do
  if moved >= most then
    break
  end
  local at = call('ZSCORE', DEAD, id)
  local failures = contains ~= '' and call('HGET', ERRORS, id)
  local last = failures and cmsgpack.unpack(failures)
  last = last and last[#last][4] or ''
  if at and tonumber(at) >= since and (contains == '' or string.find(last, contains, 1, true)) then
    if not dry then
      touch()
      local info = info_of(id)
      call('ZREM', DEAD, id)
      call('HDEL', ERRORS, id)
      call('HDEL', LEASE, id)
      info.dead, info.why, info.due, info.x = nil, nil, nil, nil
      call('HSET', INFO, id, cmsgpack.pack(info))
      if spacing > 0 and moved > 0 then
        info.due = now + spacing * moved
        call('HSET', INFO, id, cmsgpack.pack(info))
      end
      if info.g and call('HEXISTS', GROUPS, info.g) == 1 then
        call('RPUSH', EXTRA .. 'group:' .. info.g, id)
      else
        if info.g then
          call('HSET', GROUPS, info.g, id)
        end
        if info.due then
          call('ZADD', DELAYED, info.due, id)
        else
          add_ready('RPUSH', id, info.p or 4)
        end
      end
    end
    moved = moved + 1
  end
end
return {'ok', opseq, seq, kept_bytes, moved, call('ZCARD', DEAD)}
