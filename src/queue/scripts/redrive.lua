-- Makes dead messages ready again, in this topic, with no failures and no deliveries; or counts them; or shows
-- and then removes them, for those that another topic is to have.
--
-- ARGV: 0 to make them ready, 1 to count, 2 to show, 3 to remove; most messages, text that the last failure
--   must contain or '', dead since (ms, 0 for ever), how many may become ready in a second or 0, how many were
--   made ready before, the place behind which to begin (time of death and sequence number, or 0 and 0), the last time
--   of death or 0 for now, count of ids or 0 for all, the ids (of a message that was pushed without, `seq-` and its
--   number), count of sequence numbers or 0 for all, the numbers; to show also: bytes at most, of which one message may
--   have more
-- Result: {'ok', operation sequence, sequence, bytes, how many, dead that are left, shown, the place behind which
--   to go on, or 0 and 0 when nothing is left to look at, the last time of death}; shown has for each: sequence number,
--   what is kept of it, priority, group or '', time of death
local LOOK_MAX = 1000       -- dead messages whose failures one call looks at
local SAME_MAX = 20000      -- that died at one instant and are put in order; of more than these not all are
local COUNT, MOVE, SHOW, REMOVE = '1', '0', '2', '3'
local mode, most, contains, since, rate, moved_before, from_at, from_number, last_at =
  take(), take_number(), take(), take_number(), take_number(), take_number(), take_number(), take_number(), take_number()
if last_at == 0 then
  last_at = now
end
-- The ids that are meant; nothing if all are.
local wanted
for _ = 1, take_number() do
  wanted = wanted or {}
  wanted[take()] = true
end
local chosen_count = take_number()
local candidates, some_left = {}, false

local function add(id, at)
  local number = tonumber(id)
  if at >= since and at <= last_at and (at > from_at or at == from_at and number > from_number) then
    candidates[#candidates + 1] = {id = id, at = at, number = number}
  end
end

-- Adds those that died from one time to another, at most so many; returns the last time if these were so many.
local function add_between(from, to, count)
  local found = call('ZRANGEBYSCORE', DEAD, from, to, 'WITHSCORES', 'LIMIT', 0, count)
  for i = 1, #found, 2 do
    add(found[i], tonumber(found[i + 1]))
  end
  return #found == 2 * count and found[#found]
end

-- Adds the next ones, in Redis' order: those of one instant stand there as text does, 10 before 2. So of each
-- instant all are added.
local function add_next()
  local from = text(since)
  if from_number > 0 then
    add_between(text(from_at), text(from_at), SAME_MAX)
    from = '(' .. text(from_at)
  end
  some_left = #candidates >= LOOK_MAX
  local cut_at = not some_left and add_between(from, text(last_at), LOOK_MAX)
  if cut_at then
    some_left = true
    while #candidates > 0 and candidates[#candidates].at == tonumber(cut_at) do
      candidates[#candidates] = nil
    end
    add_between(cut_at, cut_at, SAME_MAX)
  end
end

local is_plain_count = mode == COUNT and contains == '' and not wanted and chosen_count == 0
for _ = 1, chosen_count do
  local id = take()
  local at = call('ZSCORE', DEAD, id)
  if at then
    add(id, tonumber(at))
  end
end
if chosen_count == 0 and not is_plain_count then
  add_next()
end
table.sort(candidates, function(a, b)
  return a.at < b.at or a.at == b.at and a.number < b.number
end)
local bytes_left = mode == SHOW and take_number() or 0

-- What the first candidates that this call looks at are named.
local function names()
  local ids, names = {}, {}
  for nth = 1, math.min(#candidates, LOOK_MAX) do
    ids[nth] = candidates[nth].id
  end
  for nth, info in ipairs(fields(INFO, ids)) do
    names[ids[nth]] = info and cmsgpack.unpack(info).i or 'seq-' .. ids[nth]
  end
  return names
end
local name_of = wanted and names()

local function is_meant(id)
  if wanted and not wanted[name_of[id]] then
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
    call('RPUSH', list_of(info.g), id)
    return
  end
  if info.g then
    call('HSET', GROUPS, info.g, id)
  end
  place(id, info)
end

local count, shown = 0, {}
if is_plain_count then
  count = math.min(call('ZCOUNT', DEAD, text(since), text(last_at)), most)
end
local last
for nth, candidate in ipairs(candidates) do
  if count >= most or nth > LOOK_MAX and chosen_count == 0 then
    some_left = true
    break
  end
  local id = candidate.id
  if is_meant(id) then
    if mode == MOVE then
      touch()
      make_ready(id, moved_before + count)
    elseif mode == REMOVE then
      touch()
      remove(id, info_of(id))
    elseif mode == SHOW then
      local body, info = call('HGET', BODY, id), info_of(id)
      if count > 0 and #body > bytes_left then
        some_left = true
        break
      end
      bytes_left = bytes_left - #body
      local n = #shown
      shown[n + 1], shown[n + 2], shown[n + 3], shown[n + 4] = id, body, info.p or 4, info.g or ''
      shown[n + 5] = text(candidate.at)
    end
    count = count + 1
  end
  last = candidate
end
local goes_on = some_left and last
return {'ok', opseq, seq, kept_bytes, count, call('ZCARD', DEAD), shown,
  goes_on and text(last.at) or '0', goes_on and last.id or '0', text(last_at)}
