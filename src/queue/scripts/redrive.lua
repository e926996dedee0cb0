-- Makes dead messages ready again, in this topic, with no failures and no deliveries; or counts them; or shows
-- and then removes them, for those that another topic is to have.
--
-- ARGV: 0 to make them ready, 1 to count, 2 to show, 3 to remove; most messages, text that the last failure
--   must contain or '', dead since (ms, 0 for ever), how many may become ready in a second or 0, count of
--   sequence numbers or 0 for all, the numbers; to show also: bytes at most, of which one message may have more
-- Result: {'ok', operation sequence, sequence, bytes, how many, dead that are left, shown}; shown has for
--   each: sequence number, what is kept of it, priority, group or ''
local MOVE, SHOW, REMOVE = '0', '2', '3'
local mode, most, contains, since, rate, chosen_count =
  take(), take_number(), take(), take_number(), take_number(), take_number()
local candidates = {}
if chosen_count > 0 then
  for _ = 1, chosen_count do
    candidates[#candidates + 1] = take()
  end
elseif contains == '' then
  candidates = call('ZRANGEBYSCORE', DEAD, since, '+inf', 'LIMIT', 0, text(most))
else
  candidates = call('ZRANGEBYSCORE', DEAD, since, '+inf')
end
local bytes_left = mode == SHOW and take_number() or 0

local function is_meant(id)
  local at = call('ZSCORE', DEAD, id)
  if not at or tonumber(at) < since then
    return false
  end
  if contains == '' then
    return true
  end
  local failures = call('HGET', ERRORS, id)
  local last = failures and cmsgpack.unpack(failures)
  return string.find(last and last[#last][4] or '', contains, 1, true)
end

-- Message `nth`, from 0, is due so long after the first that no second has more than the rate.
local function make_ready(id, nth)
  local info = info_of(id)
  call('ZREM', DEAD, id)
  call('HDEL', ERRORS, id)
  call('HDEL', LEASE, id)
  info.dead, info.why, info.n, info.due, info.x = nil, nil, nil, nil, nil
  if rate > 0 and nth > 0 then
    info.due = now + math.floor(nth * 1000 / rate)
  end
  call('HSET', INFO, id, cmsgpack.pack(info))
  if info.g and call('HEXISTS', GROUPS, info.g) == 1 then
    call('RPUSH', EXTRA .. 'group:' .. info.g, id)
    return
  end
  if info.g then
    call('HSET', GROUPS, info.g, id)
  end
  place(id, info)
end

local count, shown = 0, {}
for _, id in ipairs(candidates) do
  if count >= most then
    break
  end
  if is_meant(id) then
    if mode == MOVE then
      touch()
      make_ready(id, count)
    elseif mode == REMOVE then
      touch()
      remove(id, info_of(id))
    elseif mode == SHOW then
      local body, info = call('HGET', BODY, id), info_of(id)
      if count > 0 and #body > bytes_left then
        break
      end
      bytes_left = bytes_left - #body
      local n = #shown
      shown[n + 1], shown[n + 2], shown[n + 3], shown[n + 4] = id, body, info.p or 4, info.g or ''
    end
    count = count + 1
  end
end
return {'ok', opseq, seq, kept_bytes, count, call('ZCARD', DEAD), shown}
