-- What hand-backs and extensions share; it takes no arguments and has no result.

-- Takes a message out of where it is, whose lease is still the newest: it is in flight, or came back when its
-- deadline passed and nobody else has got it. Returns whether it was in flight.
--
-- In a list of ready messages it may be anywhere, so that looking for it would take as long as the list is: it leaves
-- a ghost there.
local function take_out(id)
  if call('ZREM', LEASED, id) == 1 then
    return true
  end
  if call('ZREM', DELAYED, id) == 0 then
    call('HINCRBY', LEFT, id, 1)
    knows_left, some_left = true, true
    add_ghosts(1)
  end
  return false
end
