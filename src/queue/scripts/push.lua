-- Takes messages in.
--
-- ARGV: count of parts, each of which is either
--   0, a count of requests with one message each that has no options, and what is kept of those; or
--   a request: its count of messages, then for each what is kept of it, and '' or its options in MessagePack:
--   i id, w ms in which the id means the same message (-1: until it is done), d delay in ms,
--   a due time in ms, p priority, t time to live in ms, g group
-- Result, by runs with step 2: for each message twice its sequence number, plus 1 if the id was known; or,
--   for each of a request that does not fit in the topic, -1
local push_results = {}
local push_count = take_number()
if not spare then
  -- After what ends messages, since a receipt is good as long as nobody else got its message; before what takes their
  -- places and ids.
  sweep()
end
if push_count > 0 then
  touch()
  local bodies, came, ready, length = {}, 0, {}, nil
  local limit, default_ttl = setting('max_length'), setting('ttl_ms')
  local default_window = setting('dedup_ms') or 120000
  local burials_left = 2 * CHUNK

  -- Writes what was taken in. Before anything else is ended, which looks for the messages behind it.
  local function flush()
    variadic('HSET', BODY, bodies)
    add_bytes(came)
    for priority, ids in pairs(ready) do
      variadic('RPUSH', KEYS[14 + priority], ids)
      note_used(priority)
    end
    bodies, came, ready = {}, 0, {}
  end

  -- Makes place for more messages, if the settings want it by burying those of the lowest priority, the oldest first.
  -- One call buries so many that what it takes in itself cannot keep the topic above its limit for ever: one that is
  -- far above, since its limit is new, comes down by one call after the other.
  local function fits(more)
    if not limit or more == 0 then
      return true
    end
    length = length or call('HLEN', BODY) - call('ZCARD', DEAD)
    if length + more <= limit then
      length = length + more
      return true
    end
    if setting('overflow') ~= 'dead' or more > limit then
      return false
    end
    flush()
    local places = length + more - limit
    if ready_length() < places then
      return false
    end
    local victims = {}
    places = math.min(places, burials_left)
    for priority = 0, 9 do
      while #victims < places do
        local entry = call('LPOP', KEYS[14 + priority])
        if not entry then
          break
        end
        local id = message_at(entry)
        if id then
          victims[#victims + 1] = id
        else
          add_ghosts(-1)
        end
      end
    end
    for _, victim in ipairs(victims) do
      bury(victim, info_of(victim), 'overflow')
    end
    burials_left = burials_left - #victims
    length = length - #victims + more
    return true
  end

  local function keep(body)
    seq = seq + 1
    local id, n = text(seq), #bodies
    body = now_text .. body
    bodies[n + 1], bodies[n + 2] = id, body
    came = came + #body
    return id
  end

  -- The message that an id stands for. One that has expired is ended, and its id with it if it is good as long as
  -- the message.
  local function known(name)
    local of, till = string.match(call('HGET', DEDUP, name) or '', '^(%d+):(-?%d+)$')
    if not of or till ~= '-1' and tonumber(till) <= now then
      return
    end
    if till == '-1' then
      local info = info_of(of)
      if is_expired(info) and not info.dead and not call('ZSCORE', LEASED, of) then
        flush()
        remove(of, info)
        length = length and length - 1
        return
      end
    end
    return tonumber(of)
  end

  local function keep_with_options(body, options)
    local id = keep(body)
    local info = {p = options.p, i = options.i, g = options.g}
    if options.i then
      local window = options.w or default_window
      local till = window < 0 and -1 or now + window
      call('HSET', DEDUP, options.i, id .. ':' .. text(till))
      if till > 0 then
        call('ZADD', DEDUP_UNTIL, till, options.i)
      end
    end
    local ttl = options.t or default_ttl
    if ttl then
      info.x = now + ttl
      call('ZADD', TTL, info.x, id)
    end
    local due = options.a or (options.d and now + options.d) or 0
    if due > now then
      info.due = due
    end
    call('HSET', INFO, id, cmsgpack.pack(info))
    if options.g and call('HEXISTS', GROUPS, options.g) == 1 then
      call('RPUSH', EXTRA .. 'group:' .. options.g, id)
      return
    end
    if options.g then
      call('HSET', GROUPS, options.g, id)
    end
    if due > now then
      call('ZADD', DELAYED, due, id)
    else
      local priority = options.p or 4
      ready[priority] = ready[priority] or {}
      table.insert(ready[priority], id)
    end
  end

  local function push_one(body, packed)
    if packed == '' and not default_ttl then
      local ids = ready[4] or {}
      ready[4] = ids
      ids[#ids + 1] = keep(body)
      return seq * 2
    end
    local options = packed == '' and {} or cmsgpack.unpack(packed)
    local earlier = options.i and known(options.i)
    if earlier then
      return earlier * 2 + 1
    end
    keep_with_options(body, options)
    return seq * 2
  end

  -- How many of a request's messages are not known yet.
  local function count_new(messages)
    local new, among = messages, {}
    for i = 0, messages - 1 do
      local packed = args[next_arg + 2 * i + 1]
      local name = packed ~= '' and cmsgpack.unpack(packed).i
      if name and (among[name] or known(name)) then
        new = new - 1
      elseif name then
        among[name] = true
      end
    end
    return new
  end

  local function push_request(messages)
    if not limit or fits(count_new(messages)) then
      for _ = 1, messages do
        add_result(push_results, push_one(take(), take()), 2)
      end
    else
      next_arg = next_arg + 2 * messages
      for _ = 1, messages do
        add_result(push_results, -1, 2)
      end
    end
  end

  local function push_plain(requests)
    for _ = 1, requests do
      local body = take()
      add_result(push_results, fits(1) and push_one(body, '') or -1, 2)
    end
  end

  for _ = 1, push_count do
    local messages = take_number()
    if messages > 0 then
      push_request(messages)
    else
      push_plain(take_number())
    end
  end
  call('HSET', META, 'seq', text(seq))
  flush()
end
