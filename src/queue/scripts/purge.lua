-- Removes messages of some states, so many at most. What is due is ready, though nobody has looked yet.
--
-- ARGV: most, where the scan of groups has come to (0 in the first call), count of states, the states (ready, delayed,
--   in_flight, dead)
-- Result: {'ok', operation sequence, sequence, bytes, removed, 1 if more may be left, where the scan has come to}
local GROUPS_MAX = 1000     -- groups that one call looks at, about
local SCANNED = 'scanned'   -- where a scan has come to that has seen all groups
local left, removed, scan, is_scanning = take_number(), 0, take(), false
local function remove_one(id, was_leased)
  touch()
  remove(id, info_of(id))
  if was_leased then
    call('ZREM', LEASED, id)
    add_ghosts(-1)
  end
  removed = removed + 1
end
-- Those of a list that stand for messages; returns how many are off the list.
local function remove_first(key, stands)
  local entries = left > 0 and call('LRANGE', key, 0, left - 1) or {}
  if #entries > 0 then
    touch()
    call('LTRIM', key, #entries, -1)
  end
  for _, entry in ipairs(entries) do
    if stands(entry) then
      remove_one(number_in(entry))
    end
  end
  left = left - #entries
  return #entries
end
local function remove_scored(key, from, to)
  local ids = left > 0 and call('ZRANGEBYSCORE', key, from, to, 'LIMIT', 0, left) or {}
  for _, id in ipairs(ids) do
    remove_one(id, key == LEASED)
  end
  left = left - #ids
end
-- Those behind others of their group. The scan goes on only when there are none left where it is.
local function remove_behind()
  local found = call('HSCAN', GROUPS, scan, 'COUNT', GROUPS_MAX)
  for i = 1, #found[2], 2 do
    remove_first(list_of(found[2][i]), is_kept)
  end
  if left > 0 then
    scan = found[1] == '0' and SCANNED or found[1]
  end
end
local LATER = '(' .. now_text
for _ = 1, take_number() do
  local state = take()
  if state == 'ready' then
    -- Those behind others first: as long as there are such, the end of a message lets one through.
    if scan ~= SCANNED then
      remove_behind()
    end
    is_scanning = scan ~= SCANNED
    if is_scanning then
      break
    end
    for priority = 0, 9 do
      -- Each of them left a ghost, or was one.
      add_ghosts(-remove_first(KEYS[14 + priority], message_at))
    end
    remove_scored(DELAYED, '-inf', now_text)
    remove_scored(LEASED, '-inf', now_text)
  elseif state == 'dead' then
    remove_scored(DEAD, '-inf', '+inf')
  else
    remove_scored(({delayed = DELAYED, in_flight = LEASED})[state], LATER, '+inf')
  end
end
return {'ok', opseq, seq, kept_bytes, removed, (left <= 0 or is_scanning) and 1 or 0, scan}
