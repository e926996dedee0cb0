-- Removes messages of some states, so many at most. What is due is ready, though nobody has looked yet.
--
-- ARGV: most, count of states, the states (ready, delayed, in_flight, dead)
-- Result: {'ok', operation sequence, sequence, bytes, removed, 1 if more may be left}
local left, removed = take_number(), 0
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
local function remove_first(key, message_of)
  local entries = left > 0 and call('LRANGE', key, 0, left - 1) or {}
  for _, entry in ipairs(entries) do
    local id = message_of(entry)
    if id then
      remove_one(id)
    end
  end
  if #entries > 0 then
    touch()
    call('LTRIM', key, #entries, -1)
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
local function behind(id)
  return call('HEXISTS', BODY, id) == 1 and id
end
local LATER = '(' .. now_text
for _ = 1, take_number() do
  local state = take()
  if state == 'ready' then
    -- Those behind others of their group first: as long as there are such, the end of a message lets one through.
    for _, group in ipairs(left > 0 and call('HKEYS', GROUPS) or {}) do
      remove_first(EXTRA .. 'group:' .. group, behind)
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
return {'ok', opseq, seq, kept_bytes, removed, left <= 0 and 1 or 0}
