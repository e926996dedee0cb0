-- Hands messages out, each under a lease that is stored before the reply.
--
-- ARGV: count of requests, then for each: how many, visibility in ms or 0 for the topic's, token,
--   consumer, and how many bytes at most (the first message is handed out whatever it has)
-- Result: deadlines of all requests, as far as there were messages; and for each message: request (from 1),
--   sequence number, what is kept of it, delivery, or, if it failed before, that and the newest failure in a list;
--   and how many of the last requests this call did not get to: they are to be made again
local STEP = 8              -- bodies that are read at once: so many may be read for nothing
local POPPED_MAX = 1000     -- messages, and bytes of them, after which a call serves no further request
local POPPED_BYTES_MAX = 4194304
local deadlines, popped = {}, {}
local pop_count = take_number()
local ready_left, pops_left = 0, 0

-- The messages that entries stand for, '' for ghosts that have a message still.
local function messages_at(entries)
  if not any_left() then
    return entries
  end
  local ids = {}
  for i, entry in ipairs(entries) do
    ids[i] = number_in(entry)
  end
  local times = call('HMGET', LEFT, unpack(ids))
  for i, entry in ipairs(entries) do
    if entry ~= entry_of(ids[i], times[i]) then
      ids[i] = ''
    end
  end
  return ids
end

-- Where the look at what is ready has come to: a part of the list of one priority, in which the entries whose bodies
-- were read are messages now; these bodies; and the place before which all is handed out or gone.
local priority, part, bodies, place = 9, {}, {}, 1
local passed = 0

local function leave_part()
  if place > 1 then
    call('LTRIM', KEYS[14 + priority], place - 1, -1)
  end
  part, bodies, place = {}, {}, 1
end

local function next_part(want)
  while priority >= 0 do
    if string.find(used, priority, 1, true) then
      part = call('LRANGE', KEYS[14 + priority], 0, math.min(want, CHUNK) - 1)
      if #part > 0 then
        touch()
        return true
      end
    end
    priority = priority - 1
  end
  return false
end

-- The first message that is ready, highest priority and oldest first, and its body; nothing if there is none, or
-- if it is not found by a look of the length that one call may have. `want` more are wanted at most.
local function first_ready(want)
  while passed < PASSED_MAX do
    if place > #part then
      leave_part()
      if not next_part(want) then
        return
      end
    end
    if place > #bodies then
      local ids = messages_at({unpack(part, place, math.min(place + STEP - 1, #part))})
      local some = call('HMGET', BODY, unpack(ids))
      for i = 1, #ids do
        part[place + i - 1], bodies[place + i - 1] = ids[i], some[i]
      end
    end
    local id, body = part[place], bodies[place]
    local info = body and some_expired and info_of(id)
    if info and is_expired(info) then
      remove(id, info)
      body = false
    end
    if body then
      return id, body
    end
    place, passed = place + 1, passed + 1
  end
end

-- Takes messages for the requests, one request after the other: their numbers, their bodies, and how many each has.
local function choose()
  local ids, chosen, counts, want, size = {}, {}, {}, 0, 0
  for i = 0, pop_count - 1 do
    want = want + args[next_arg + 5 * i]
  end
  for number = 1, pop_count do
    if #ids >= POPPED_MAX or size >= POPPED_BYTES_MAX then
      pops_left = pop_count - number + 1
      break
    end
    local at = next_arg + 5 * (number - 1)
    local max, bytes, first = tonumber(args[at]), tonumber(args[at + 4]), #ids
    while #ids - first < max do
      local id, body = first_ready(want)
      if not id then
        break
      end
      bytes = bytes - #body
      if bytes < 0 and #ids > first then
        break
      end
      ids[#ids + 1], chosen[#chosen + 1] = id, body
      place, want, size = place + 1, want - 1, size + #body
    end
    counts[number] = #ids - first
    if counts[number] == 0 then
      if passed >= PASSED_MAX then
        pops_left = pop_count - number + 1
      end
      break
    end
  end
  leave_part()
  add_ghosts(-passed)
  return ids, chosen, counts
end

local function pop_all()
  local ids, chosen, counts = choose()
  if #ids == 0 then
    return
  end
  local leases = fields(LEASE, ids)
  local infos = call('EXISTS', INFO) == 1 and fields(INFO, ids) or {}
  local errors = call('EXISTS', ERRORS) == 1 and fields(ERRORS, ids) or {}

  -- Of the message at a place, with how often it was handed out, this time included.
  local function lease_again(at, token, consumer)
    local deliveries, counted = 1, 0
    if leases[at] then
      local _
      _, deliveries, counted = lease_parts(leases[at])
      deliveries = deliveries + 1
    end
    local parts = {token, deliveries, counted, infos[at] and 'i' or '-', consumer}
    return table.concat(parts, ':'), deliveries
  end

  local until_by_visibility = {}
  local function deadline_of(visibility)
    local ms = tonumber(visibility)
    if ms == 0 then
      ms = setting('visibility_ms') or 30000
    end
    until_by_visibility[visibility] = text(now + ms)
    return until_by_visibility[visibility]
  end

  local new_leases, leased, at = {}, {}, 1
  for number = 1, #counts do
    local _, visibility, token, consumer = unpack(args, next_arg, next_arg + 3)
    next_arg = next_arg + 5
    local deadline = until_by_visibility[visibility] or deadline_of(visibility)
    deadlines[number] = deadline
    for _ = 1, counts[number] do
      local id = ids[at]
      local lease, deliveries = token .. FIRST_LEASE .. consumer, 1
      if leases[at] or infos[at] then
        lease, deliveries = lease_again(at, token, consumer)
      end
      if errors[at] then
        local history = cmsgpack.unpack(errors[at])
        deliveries = {deliveries, history[#history][4]}
      end
      new_leases[2 * at - 1], new_leases[2 * at] = id, lease
      leased[2 * at - 1], leased[2 * at] = deadline, id
      local p = 4 * at
      popped[p - 3], popped[p - 2], popped[p - 1], popped[p] = number, id, chosen[at], deliveries
      at = at + 1
    end
  end
  variadic('HSET', LEASE, new_leases)
  variadic('ZADD', LEASED, leased)
end

if pop_count > 0 and not spare then
  if not paused then
    pop_all()
  end
  ready_left = ready_length()
end
