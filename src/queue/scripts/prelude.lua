-- What every script begins with: the names of keys, the fence, the clock, and what transitions share.
--
-- KEYS[1..13]   the keys below, in this order (keys.rs builds them)
-- KEYS[14..23]  lists of ready messages by priority, 0 to 9
-- KEYS[24]      beginning of the keys of groups, of acknowledgements and of what left its list
-- ARGV[1]       epoch of the owner; a lower one than the stored is refused
-- ARGV[2]       operation sequence that the owner knows to be acknowledged; a lower stored one is a loss
-- ARGV[3]       sequence number that is taken at least, after a loss
-- ARGV[4]       1: only commands that a Redis without memory takes
-- ARGV[5]       1: the bytes of the topic's bodies are counted
-- ARGV[6..]     by transition
--
-- Replies: {'fenced', epoch}, {'lost', operation sequence, sequence}, or what the transition says.
local META, BODY, INFO, LEASE, LEASED, DELAYED, TTL, DEDUP, DEDUP_UNTIL, DEAD, ERRORS, SETTINGS, GROUPS =
  unpack(KEYS, 1, 13)
local EXTRA = KEYS[24]
local call, args, format = redis.call, ARGV, string.format
local next_arg = 6
local CHUNK = 1000          -- arguments of one variadic command; Lua's stack ends near 8,000
local SWEEP_MAX = 500       -- expiries that one call deals with; more are found by the next
local PASSED_MAX = 1000     -- ghosts and expired messages that the pops, or the pushes, of one call pass over
local TRIM_MAX = 1000       -- ghosts that one call takes off an end of a list
local HISTORY_MAX = 10      -- failures of a message that are kept, the newest
local ACKED_MS = 3600000    -- how long an acknowledgement is remembered
local BITS = 65536          -- acknowledgements of one bitmap
local ENDED = '0'           -- instead of the token in a lease that its holder ended
local LEFT = EXTRA .. 'left' -- how often a message has left a list of ready ones from within
local FIRST_LEASE = ':1:0:-:' -- between token and consumer, of a message without info that never came back

-- A whole number as text, as it goes into commands and replies. A number itself is printed by `redis.call`
-- and `..` with 17 and 14 digits as a fraction may need, which takes two to three times as long.
local function text(number)
  return format('%d', number)
end

local function take()
  next_arg = next_arg + 1
  return args[next_arg - 1]
end

local function take_number()
  return tonumber(take())
end

-- Adds to results that are told by runs: the first of each, and how many follow one another by `step`.
local function add_result(runs, result, step)
  local n = #runs
  if n > 0 and result == runs[n - 1] + step * runs[n] then
    runs[n] = runs[n] + 1
  else
    runs[n + 1], runs[n + 2] = result, 1
  end
end

local meta = call('HMGET', META, 'epoch', 'opseq', 'seq', 'now', 'used', 'paused', 'ghosts',
  'bytes')
local epoch = tonumber(ARGV[1])
if tonumber(meta[1] or 0) > epoch then
  return {'fenced', meta[1]}
end
local opseq, seq = tonumber(meta[2] or 0), tonumber(meta[3] or 0)
if opseq < tonumber(ARGV[2]) then
  return {'lost', opseq, seq}
end
seq = math.max(seq, tonumber(ARGV[3]))
local time = call('TIME')
-- Never earlier than any call before: the server's clock may be set back.
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(meta[4] or 0))
local now_text = text(now)
local used, paused, ghosts = meta[5] or '', meta[6], tonumber(meta[7] or 0)
local spare = ARGV[4] == '1'
local counts_bytes, kept_bytes = ARGV[5] == '1', tonumber(meta[8] or 0)
local buried = {}
local touched = false

-- To be called before the first write. It is one that a Redis without memory refuses, so that
-- nothing is done by halves.
local function touch()
  if not touched and not spare then
    touched = true
    opseq = opseq + 1
    call('HSET', META, 'epoch', ARGV[1], 'opseq', text(opseq), 'now', now_text)
  end
end

local settings_read
local function setting(name)
  if not settings_read then
    settings_read = {}
    local all = call('HGETALL', SETTINGS)
    for i = 1, #all, 2 do
      settings_read[all[i]] = tonumber(all[i + 1]) or all[i + 1]
    end
  end
  return settings_read[name]
end

-- Calls a variadic command with any number of arguments, whole pairs staying together.
local function variadic(command, key, args)
  local sum = 0
  for from = 1, #args, CHUNK do
    local result = call(command, key, unpack(args, from, math.min(from + CHUNK - 1, #args)))
    sum = sum + (tonumber(result) or 0)
  end
  return sum
end

-- The values of a hash by field, false where there is none.
local function fields(key, names)
  if #names == 0 then
    return {}
  elseif #names <= CHUNK then
    return call('HMGET', key, unpack(names))
  end
  local values = {}
  for from = 1, #names, CHUNK do
    local some = call('HMGET', key, unpack(names, from, math.min(from + CHUNK - 1, #names)))
    for i = 1, #some do
      values[from + i - 1] = some[i]
    end
  end
  return values
end

local function length_of(id)
  return counts_bytes and call('HSTRLEN', BODY, id) or 0
end

-- Bodies came, or are gone. A Redis without memory writes no numbers: what goes then is counted until the
-- topic is empty.
local function add_bytes(more)
  if counts_bytes and more ~= 0 and not spare then
    kept_bytes = math.max(0, kept_bytes + more)
    if more < 0 and call('HLEN', BODY) == 0 then
      kept_bytes = 0
    end
    call('HSET', META, 'bytes', text(kept_bytes))
  end
end

local function info_of(id)
  local packed = call('HGET', INFO, id)
  return packed and cmsgpack.unpack(packed) or {}
end

local function lease_parts(lease)
  local token, deliveries, counted, has_info, consumer =
    string.match(lease, '^(%x+):(%d+):(%d+):(.):(.*)$')
  return token, tonumber(deliveries), tonumber(counted), has_info, consumer
end

-- How often the message of a lease was handed out, and whether it has info; nothing if the lease is not
-- under this token.
local function lease_under(token, lease)
  if not lease or string.find(lease, token, 1, true) ~= 1 then
    return
  end
  -- Of nearly all, without taking it to pieces.
  if string.sub(lease, #token + 1, #token + #FIRST_LEASE) == FIRST_LEASE then
    return 1, '-'
  end
  if string.sub(lease, #token + 1, #token + 1) == ':' then
    local _, deliveries, _, has_info = lease_parts(lease)
    return deliveries, has_info
  end
end

local function note_used(priority)
  if not string.find(used, priority, 1, true) then
    used = used .. priority
    call('HSET', META, 'used', used)
  end
end

-- Whether any message has left a list of ready ones from within.
local knows_left, some_left = false, false
local function any_left()
  if not knows_left then
    knows_left, some_left = true, call('EXISTS', LEFT) == 1
  end
  return some_left
end

-- What stands for a message in a list of ready ones: its number, and how often it has left such a list from
-- within. What it left there is a ghost, since it stands for the message no more.
local function entry_of(id, times)
  return times and id .. '.' .. times or id
end

local function entry_now(id)
  return entry_of(id, any_left() and call('HGET', LEFT, id))
end

-- The number at the beginning of an entry of a list, or of what a name stands for.
local function number_in(entry)
  return string.match(entry, '^%d+')
end

-- The message that an entry stands for; nothing if it is a ghost.
local function message_at(entry)
  local id = number_in(entry)
  if call('HEXISTS', BODY, id) == 1 and entry == entry_now(id) then
    return id
  end
end

local function add_ready(command, id, priority)
  call(command, KEYS[14 + priority], entry_now(id))
  note_used(priority)
end

-- Entries of lists of ready messages that stand for none became more, or fewer.
local function add_ghosts(count)
  if count ~= 0 then
    ghosts = ghosts + count
    call('HINCRBY', META, 'ghosts', count)
  end
end

local function forget_left(ids)
  if any_left() then
    variadic('HDEL', LEFT, ids)
  end
end

-- Puts a message that stands behind none of its group where it waits.
local function place(id, info)
  if (info.due or 0) > now then
    call('ZADD', DELAYED, info.due, id)
  else
    add_ready('RPUSH', id, info.p or 4)
  end
end

-- A message of a group ended: the next one of the group takes its place.
local function advance_group(group)
  local list = EXTRA .. 'group:' .. group
  while true do
    local id = call('LPOP', list)
    if not id then
      call('HDEL', GROUPS, group)
      return
    end
    if call('HEXISTS', BODY, id) == 1 then
      local info = info_of(id)
      call('HSET', GROUPS, group, id)
      place(id, info)
      return
    end
  end
end

local function is_expired(info)
  return info.x and info.x <= now
end

-- Whether the message stands behind others of its group.
local function is_behind(id, info)
  return info.g and call('HGET', GROUPS, info.g) ~= id
end

-- A message ended that this name stood for: so the name ends, unless it is to be known for a time yet.
local function forget_name(name, id)
  local entry = name and call('HGET', DEDUP, name)
  local of, till = string.match(entry or '', '^(%d+):(-?%d+)$')
  if of == id and (till == '-1' or tonumber(till) <= now) then
    call('HDEL', DEDUP, name)
    call('ZREM', DEDUP_UNTIL, name)
  end
end

-- Ends what else is kept of a message that has more than the usual: names, group, time to live.
local function forget_info(id, info)
  call('HDEL', INFO, id)
  if info.x then
    call('ZREM', TTL, id)
  end
  forget_name(info.i, id)
  forget_name(info.k, id)
  if info.g and not is_behind(id, info) then
    advance_group(info.g)
  end
end

-- Ends a message that is not in flight, wherever it stands.
local function remove(id, info)
  local behind = is_behind(id, info)
  local length = length_of(id)
  call('HDEL', BODY, id)
  add_bytes(-length)
  call('HDEL', LEASE, id)
  call('HDEL', ERRORS, id)
  forget_left({id})
  local counted = call('ZREM', DELAYED, id) + call('ZREM', DEAD, id)
  if counted == 0 and not behind then
    add_ghosts(1)
  end
  if info.dead then
    info.g = nil
  end
  forget_info(id, info)
end

local function record_failure(id, deliveries, consumer, reason)
  local kept = call('HGET', ERRORS, id)
  local history = kept and cmsgpack.unpack(kept) or {}
  if #history >= HISTORY_MAX then
    table.remove(history, 1)
  end
  history[#history + 1] = {now, deliveries, consumer, reason}
  call('HSET', ERRORS, id, cmsgpack.pack(history))
end

-- To the dead state; the message is in no other place any more.
local function bury(id, info, why)
  call('ZADD', DEAD, now, id)
  local lease = call('HGET', LEASE, id)
  if lease then
    -- How often it was handed out, to be shown.
    local _
    _, info.n = lease_parts(lease)
    call('HDEL', LEASE, id)
  end
  if info.x then
    call('ZREM', TTL, id)
  end
  local group = info.g
  info.dead, info.why = 1, why
  call('HSET', INFO, id, cmsgpack.pack(info))
  if group then
    advance_group(group)
  end
  buried[#buried + 1] = id
  buried[#buried + 1] = why
end

-- How long a message rests after so many failures; after none as after the first.
local function backoff(counted)
  local kind, base = setting('backoff'), setting('backoff_base_ms')
  if kind == 'fixed' then
    return base
  elseif kind == 'exponential' then
    return math.min(base * 2 ^ math.min(math.max(counted, 1) - 1, 40), setting('backoff_max_ms'))
  end
  return 0
end

-- A delivery ended without an acknowledgement; the message is in no place any more. Its receipt stays good unless its
-- holder ended it.
local function give_back(id, lease, counts, delay, reason, by_holder)
  local token, deliveries, counted, has_info, consumer = lease_parts(lease)
  token = by_holder and ENDED or token
  local info = has_info == 'i' and info_of(id) or {}
  if counts then
    counted = counted + 1
    record_failure(id, deliveries, consumer, reason)
  end
  if is_expired(info) then
    remove(id, info)
    add_ghosts(-1)
    return
  end
  if counts and counted >= (setting('max_deliveries') or 10) then
    bury(id, info, 'max_deliveries')
    return
  end
  call('HSET', LEASE, id, table.concat({token, deliveries, counted, has_info, consumer}, ':'))
  delay = delay or (counts and backoff(counted)) or 0
  if delay > 0 then
    call('ZADD', DELAYED, now + delay, id)
  else
    add_ready('LPUSH', id, info.p or 4)
  end
end

-- What time has brought: delays that are over, deadlines that passed, messages that expired.
local some_due = false      -- perhaps more of all that than this call deals with
local some_expired = false  -- perhaps more that expired
local function sweep()
  local due = call('ZRANGEBYSCORE', DELAYED, '-inf', now_text, 'LIMIT', 0, SWEEP_MAX)
  if #due > 0 then
    touch()
    variadic('ZREM', DELAYED, due)
    for _, id in ipairs(due) do
      add_ready('RPUSH', id, info_of(id).p or 4)
    end
  end
  local over = call('ZRANGEBYSCORE', LEASED, '-inf', now_text, 'LIMIT', 0, SWEEP_MAX)
  if #over > 0 then
    touch()
    variadic('ZREM', LEASED, over)
    -- From the newest to the oldest, each to the front: so the oldest comes out first.
    for i = 1, #over do
      over[i] = tonumber(over[i])
    end
    table.sort(over)
    for i = #over, 1, -1 do
      local id = text(over[i])
      give_back(id, call('HGET', LEASE, id), true, nil, 'the visibility timeout ran out')
    end
  end
  local expired = call('ZRANGEBYSCORE', TTL, '-inf', now_text, 'LIMIT', 0, SWEEP_MAX)
  some_expired = #expired == SWEEP_MAX
  some_due = some_expired or #due == SWEEP_MAX or #over == SWEEP_MAX
  if #expired > 0 then
    touch()
    variadic('ZREM', TTL, expired)
    for _, id in ipairs(expired) do
      -- One in flight ends when it comes back, or is acknowledged.
      if not call('ZSCORE', LEASED, id) then
        remove(id, info_of(id))
      end
    end
  end
  local forgotten = call('ZRANGEBYSCORE', DEDUP_UNTIL, '-inf', now_text, 'LIMIT', 0, SWEEP_MAX)
  if #forgotten > 0 then
    touch()
    variadic('ZREM', DEDUP_UNTIL, forgotten)
    for _, name in ipairs(forgotten) do
      local of = number_in(call('HGET', DEDUP, name) or '')
      if not of or call('HEXISTS', BODY, of) == 0 then
        call('HDEL', DEDUP, name)
      end
    end
  end
end

-- A message that was never handed out but once and had no options is remembered by a bit: it has had one receipt,
-- which says itself that it is of this topic. The others, which may have had several receipts of one delivery, are
-- remembered by their receipt.
local function remember_ack(id, token, deliveries, has_info, bits)
  if deliveries == 1 and has_info == '-' then
    local number = tonumber(id)
    local bit = number % BITS
    local chunk = (number - bit) / BITS
    local sets = bits[chunk] or {}
    bits[chunk] = sets
    local n = #sets
    sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', text(bit), '1'
  else
    call('SET', EXTRA .. 'acked:' .. id .. ':' .. token, 1, 'PX', ACKED_MS)
  end
end

local function is_acked(id, token, delivery)
  if delivery == '1' then
    local chunk = math.floor(id / BITS)
    if call('GETBIT', EXTRA .. 'acked:' .. chunk, id % BITS) == 1 then
      return true
    end
  end
  return call('EXISTS', EXTRA .. 'acked:' .. id .. ':' .. token) == 1
end

-- The next instant at which time alone makes a message ready; 0 if there is none.
local function next_due()
  local first = 0
  for _, key in ipairs({DELAYED, LEASED}) do
    local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    local at = tonumber(head[2])
    if at and (first == 0 or at < first) then
      first = at
    end
  end
  return first
end

local function ready_length()
  local length = -ghosts
  for priority in string.gmatch(used, '%d') do
    length = length + call('LLEN', KEYS[14 + priority])
  end
  return length
end
