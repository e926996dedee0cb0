-- What hand-backs and extensions share; it takes no arguments and has no result.

-- Takes a message out of where it is, whose lease is still the newest: it is in flight, or came back when its
-- deadline passed and nobody else has got it. Returns whether it was in flight.
--
-- In a list of ready messages it may be anywhere, so that looking for it would take as long as the list is: it leaves
-- a ghost there.
local left_ghosts = false
local function take_out(id)
  if call('ZREM', LEASED, id) == 1 then
    return true
  end
  if call('ZREM', DELAYED, id) == 0 then
    call('HINCRBY', LEFT, id, 1)
    knows_left, some_left, left_ghosts = true, true, true
    add_ghosts(1)
  end
  return false
end

-- Takes ghosts off both ends of the lists, where those stand that came back lately. Else a list that nobody pops from
-- would grow with every message that comes back and is taken out, over and over.
local function trim()
  if not left_ghosts then
    return
  end
  left_ghosts = false
  for priority in string.gmatch(used, '%d') do
    local key = KEYS[14 + priority]
    for _, side in ipairs({{'LPOP', 0}, {'RPOP', -1}}) do
      local taken = 0
      local entry = call('LINDEX', key, side[2])
      while entry and taken < TRIM_MAX and not message_at(entry) do
        call(side[1], key)
        taken = taken + 1
        entry = call('LINDEX', key, side[2])
      end
      add_ghosts(-taken)
    end
  end
end
