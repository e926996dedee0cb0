-- Removes messages of some states, so many at most.
--
-- ARGV: most, count of states, the states (ready, delayed, in_flight, dead)
-- Result: {'ok', operation sequence, sequence, bytes, removed, 1 if more are left}
local most, removed = take_number(), 0
local function remove_all(ids, from_leased)
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
for _ = 1, take_number() do
  local state = take()
  local left = most - removed
  if left > 0 then
    if state == 'ready' then
      for priority = 0, 9 do
        local key = KEYS[14 + priority]
        local ids = call('LRANGE', key, 0, most - removed)
        remove_all(ids)
        if #ids > 0 then
          touch()
          call('LTRIM', key, #ids, -1)
          -- Each of them left a ghost, or was one.
          add_ghosts(-#ids)
        end
      end
    else
      local key = ({delayed = DELAYED, in_flight = LEASED, dead = DEAD})[state]
      remove_all(call('ZRANGE', key, 0, left - 1), state == 'in_flight')
    end
  end
end
return {'ok', opseq, seq, kept_bytes, removed, removed >= most and 1 or 0}
