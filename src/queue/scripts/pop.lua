-- Hands messages out, each under a lease that is stored before the reply.
--
-- ARGV: count of requests, then for each: how many, visibility in ms or 0 for the topic's, token,
--   consumer, and how many bytes at most (the first message is handed out whatever it has)
-- Result: deadlines of all requests, as far as there were messages; and for each message: request (from 1),
--   sequence number, what is kept of it, delivery, or, if it failed before, that and the newest failure in a list
local deadlines, popped = {}, {}
local pop_count = take_number()
local ready_left = 0

-- Up to so many messages that are ready, highest priority and oldest first, with their bodies.
local function next_ready(want)
  local ids, bodies = {}, {}
  for priority = 9, 0, -1 do
    if string.find(used, priority, 1, true) then
      while #ids < want do
        local key = KEYS[14 + priority]
        local some = call('LRANGE', key, 0, math.min(want - #ids, CHUNK) - 1)
        if #some == 0 then
          break
        end
        touch()
        call('LTRIM', key, #some, -1)
        local found = call('HMGET', BODY, unpack(some))
        for i = 1, #some do
          local info = found[i] and some_expired and info_of(some[i])
          if info and is_expired(info) then
            remove(some[i], info)
            found[i] = false
          end
          if found[i] then
            ids[#ids + 1], bodies[#bodies + 1] = some[i], found[i]
          else
            add_ghosts(-1)
          end
        end
      end
    end
  end
  return ids, bodies
end

local function pop_all()
  local want = 0
  for i = 0, pop_count - 1 do
    want = want + args[next_arg + 5 * i]
  end
  local ids, bodies = next_ready(want)
  if #ids == 0 then
    return
  end
  local leases = fields(LEASE, ids)
  local infos = call('EXISTS', INFO) == 1 and fields(INFO, ids) or {}
  local errors = call('EXISTS', ERRORS) == 1 and fields(ERRORS, ids) or {}

  -- Of the message at a place, with how often it was handed out, this time included.
  local function lease_again(place, token, consumer)
    local deliveries, counted = 1, 0
    if leases[place] then
      local _
      _, deliveries, counted = lease_parts(leases[place])
      deliveries = deliveries + 1
    end
    local parts = {token, deliveries, counted, infos[place] and 'i' or '-', consumer}
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
  for number = 1, pop_count do
    local max, visibility, token, consumer, bytes = unpack(args, next_arg, next_arg + 4)
    next_arg = next_arg + 5
    local deadline = until_by_visibility[visibility] or deadline_of(visibility)
    deadlines[number] = deadline
    local first, after = at, math.min(at + max, #ids + 1)
    while at < after do
      local id, body = ids[at], bodies[at]
      bytes = bytes - #body
      if bytes < 0 and at > first then
        break
      end
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
      popped[p - 3], popped[p - 2], popped[p - 1], popped[p] = number, id, body, deliveries
      at = at + 1
    end
  end
  variadic('HSET', LEASE, new_leases)
  variadic('ZADD', LEASED, leased)
  -- What no request had room for goes back to where it was.
  for i = #ids, at, -1 do
    add_ready('LPUSH', ids[i], infos[i] and cmsgpack.unpack(infos[i]).p or 4)
  end
end

if pop_count > 0 and not spare then
  if not paused then
    pop_all()
  end
  ready_left = ready_length()
end
