-- Hands messages out, each under a lease that is stored before the reply.
--
-- ARGV: count of requests, then for each: how many, visibility in ms or 0 for the topic's, token,
--   consumer, and how many bytes at most (the first message is handed out whatever it has)
-- Result: for each message: request (from 1), sequence number, delivery, deadline, what is kept of
--   it, newest failure or ''
local popped = {}
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
  local requests, want = {}, 0
  for i = 1, pop_count do
    requests[i] = {take_number(), take_number(), take(), take(), take_number()}
    want = want + requests[i][1]
  end
  local ids, bodies = next_ready(want)
  if #ids == 0 then
    return
  end
  local leases, infos, errors = {}, {}, {}
  local has_infos = call('EXISTS', INFO) == 1
  local has_errors = call('EXISTS', ERRORS) == 1
  for from = 1, #ids, CHUNK do
    local to = math.min(from + CHUNK - 1, #ids)
    local some = call('HMGET', LEASE, unpack(ids, from, to))
    local some_infos = has_infos and call('HMGET', INFO, unpack(ids, from, to)) or {}
    local some_errors = has_errors and call('HMGET', ERRORS, unpack(ids, from, to)) or {}
    for i = 1, #some do
      leases[from + i - 1] = some[i]
      infos[from + i - 1] = some_infos[i]
      errors[from + i - 1] = some_errors[i]
    end
  end
  local new_leases, deadlines, at = {}, {}, 1
  for number, request in ipairs(requests) do
    local visibility = request[2] > 0 and request[2] or setting('visibility_ms') or 30000
    local deadline, bytes, first = now + visibility, request[5], at
    while at <= #ids and at - first < request[1] do
      bytes = bytes - #bodies[at]
      if bytes < 0 and at > first then
        break
      end
      local deliveries, counted = 0, 0
      if leases[at] then
        local _
        _, deliveries, counted = lease_parts(leases[at])
      end
      deliveries = deliveries + 1
      local lease = request[3] .. ':' .. deliveries .. ':' .. counted .. ':'
        .. (infos[at] and 'i' or '-') .. ':' .. request[4]
      local n = #new_leases
      new_leases[n + 1], new_leases[n + 2] = ids[at], lease
      deadlines[n + 1], deadlines[n + 2] = deadline, ids[at]
      local history = errors[at] and cmsgpack.unpack(errors[at])
      local p = #popped
      popped[p + 1], popped[p + 2], popped[p + 3] = number, ids[at], deliveries
      popped[p + 4], popped[p + 5] = string.format('%.0f', deadline), bodies[at]
      popped[p + 6] = history and history[#history][4] or ''
      at = at + 1
    end
  end
  variadic('HSET', LEASE, new_leases)
  variadic('ZADD', LEASED, deadlines)
  -- What no request had room for goes back to where it was.
  for i = #ids, at, -1 do
    add_ready('LPUSH', ids[i], infos[i] and cmsgpack.unpack(infos[i]).p or 4)
  end
end

if pop_count > 0 and not spare then
  sweep()
  if not paused then
    pop_all()
  end
  ready_left = ready_length()
end
