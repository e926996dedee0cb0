-- Takes messages in.
--
-- ARGV: count of parts, each of which is either
--   0, a count of requests with one message each that has no options, and what is kept of those; or
--   a request: its count of messages, then for each what is kept of it, and '' or its options in MessagePack:
--   i id, k what it is known by instead of the id, w ms in which that means the same message (-1: until it is
--   done), d delay in ms,
--   a due time in ms, p priority, t time to live in ms, g group
-- Result, by runs with step 2: for each message twice its sequence number, plus 1 if it was known; or,
--   for each of a request that does not fit in the topic, -1
local push_results = {}
local push_count = take_number()
-- After what ends messages, since a receipt is good as long as nobody else got its message; before what takes their
-- places and ids.
sweep()
if push_count > 0 then
  touch()
  local bodies, came, ready, length = {}, 0, {}, nil
  local seq_before = seq
  local limit, default_ttl = setting('max_length'), setting('ttl_ms')
  local default_window = setting('dedup_ms') or 120000
  local burials_left, passed = 2 * CHUNK, 0

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
    local victims, passed_before = {}, passed
    places = math.min(places, burials_left)
    for priority = 0, 9 do
      while #victims < places and passed < PASSED_MAX do
        local entry = call('LPOP', KEYS[14 + priority])
        if not entry then
          break
        end
        local id = message_at(entry)
        if id then
          victims[#victims + 1] = {id = id, entry = entry, list = KEYS[14 + priority]}
        else
          passed = passed + 1
        end
      end
    end
    add_ghosts(passed_before - passed)
    -- Too many entries stood for no message. These are gone now, so that the next push gets on.
    if #victims < places then
      for n = #victims, 1, -1 do
        call('LPUSH', victims[n].list, victims[n].entry)
      end
      return false
    end
    for _, victim in ipairs(victims) do
      bury(victim.id, info_of(victim.id), 'overflow')
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

  -- What a message is known by. No id has a control character, so that the two kinds of names never meet.
  local function name_of(options)
    return options.k and '\1' .. options.k or options.i
  end

  local function window_of(options)
    return options.w or default_window
  end

  -- The message that a name stands for. One that has expired is ended, and its name with it if that is good as long
  -- as the message.
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

  local function note_name(name, id, window)
    local till = window < 0 and -1 or now + window
    call('HSET', DEDUP, name, id .. ':' .. text(till))
    if till > 0 then
      call('ZADD', DEDUP_UNTIL, till, name)
    end
  end

  -- How long the id of a message that is known by something else stands for it, too: not while it stands for another
  -- one that is there, and, unless until it is done, no shorter than it is known for one that is gone.
  local function id_window_of(options)
    local window, of = window_of(options), known(options.i)
    if not of then
      return window
    end
    if of > seq_before or is_kept(text(of)) then
      return
    end
    local till = string.match(call('HGET', DEDUP, options.i), '-?%d+$')
    return window < 0 and window or math.max(window, tonumber(till) - now)
  end

  local function keep_with_options(body, options)
    local id_window = options.k and options.i and id_window_of(options)
    local id = keep(body)
    local info = {p = options.p, i = options.i, k = options.k and name_of(options), g = options.g}
    if name_of(options) then
      note_name(name_of(options), id, window_of(options))
    end
    if id_window then
      note_name(options.i, id, id_window)
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
      call('RPUSH', list_of(options.g), id)
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
    local name = name_of(options)
    local earlier = name and known(name)
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
      local options = packed ~= '' and cmsgpack.unpack(packed) or {}
      local name = name_of(options)
      if name and (among[name] or known(name)) then
        new = new - 1
      elseif name and window_of(options) ~= 0 then
        among[name] = true
        if options.i then
          among[options.i] = true
        end
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
