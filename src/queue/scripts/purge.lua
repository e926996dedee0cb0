-- Removes messages of some states, so many at most.
--
-- ARGV: most, count of states, the states (ready, delayed, in_flight, dead)
-- Result: {'ok', operation sequence, sequence, bytes, removed, 1 if more may be left}
local left, removed = take_number(), 0
local function remove_all(ids, from_leased)
  left = left - #ids
  for _, id in ipairs(ids) do
    if call('HEXISTS', BODY, id) == 1 then
      touch()
      remove(id, info_of(id))
      if from_leased then
        call('ZREM', LEASED, id)
        add_ghosts(-1)
      end
      removed = removed + 1
    end
  end
end
-- The first of a list, as many as are left; returns how many these were.
local function remove_first(key)
  local ids = left > 0 and call('LRANGE', key, 0, left - 1) or {}
  if #ids > 0 then
    touch()
    remove_all(ids)
    call('LTRIM', key, #ids, -1)
  end
  return #ids
end
for _ = 1, take_number() do
  local state = take()
  if state == 'ready' then
    repeat
      local before = left
      for priority = 0, 9 do
        -- Each of them left a ghost, or was one.
        add_ghosts(-remove_first(KEYS[14 + priority]))
      end
      -- Those behind others of their group; of each that was ready the next one is by now, in a list above.
      for _, group in ipairs(left > 0 and call('HKEYS', GROUPS) or {}) do
        remove_first(EXTRA .. 'group:' .. group)
      end
    until left == before or left <= 0
  elseif left > 0 then
    local key = ({delayed = DELAYED, in_flight = LEASED, dead = DEAD})[state]
    remove_all(call('ZRANGE', key, 0, left - 1), state == 'in_flight')
  end
end
return {'ok', opseq, seq, kept_bytes, removed, left <= 0 and 1 or 0}
