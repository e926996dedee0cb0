-- What every script begins with: the names of keys, the fence, the clock, and what transitions share.
--
-- KEYS[1..13]   the keys below, in this order (keys.rs builds them)
-- KEYS[14..23]  lists of ready messages by priority, 0 to 9
-- KEYS[24]      beginning of the keys of groups, of acknowledgements and of what left its list
-- ARGV[1]       epoch of the owner; a lower one than the stored is refused
-- ARGV[2]       operation sequence that the owner knows to be acknowledged; a lower stored one is a loss
-- ARGV[3]       sequence number that is taken at least, after a loss
-- ARGV[4]       1: Redis has no memory; what makes room is done all the same
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
local SWEEP_MAX = 2 * CHUNK -- expiries that one call deals with: more than one call brings; more are found by the next
local PASSED_MAX = 1000     -- ghosts and expired messages that the pops, or the pushes, of one call pass over
local TRIM_MAX = 3 * CHUNK  -- ghosts that one call takes off the ends of lists of ready ones: more than it leaves there
local HISTORY_MAX = 10      -- failures of a message that are kept, the newest
local ENDED = '0'           -- instead of the token in a lease that its holder ended
local LEFT = EXTRA .. 'left' -- how often a message has left a list of ready ones from within
local STUCK = EXTRA .. 'stuck' -- groups whose next message is not found yet
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
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local now = math.max(clock, tonumber(meta[4] or 0))
local now_text = text(now)
local used, paused, ghosts = meta[5] or '', meta[6], tonumber(meta[7] or 0)
local spare = ARGV[4] == '1'
local counts_bytes, kept_bytes = ARGV[5] == '1', tonumber(meta[8] or 0)
local buried = {}
local touched = false

-- To be called before the first write. It is one that a Redis without memory refuses, so that
-- nothing is done by halves; but not behind a removal: Redis lets a script that has written go on.
local function touch()
  if not touched then
    touched = true
    if spare then
      call('HDEL', META, '-')
    end
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

-- Bodies came, or are gone.
local function add_bytes(more)
  if counts_bytes and more ~= 0 then
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

local function is_kept(id)
  return call('HEXISTS', BODY, id) == 1
end

-- The message that an entry stands for; nothing if it is a ghost.
local function message_at(entry)
  local id = number_in(entry)
  if is_kept(id) and entry == entry_now(id) then
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

-- Takes ghosts off both ends of a list, so many at most; `stands` says which entries are none. Returns how many.
local function trim_list(key, stands, most)
  local taken = 0
  for _, side in ipairs({{'LPOP', 0}, {'RPOP', -1}}) do
    local entry = call('LINDEX', key, side[2])
    while entry and taken < most and not stands(entry) do
      touch()
      call(side[1], key)
      taken = taken + 1
      entry = call('LINDEX', key, side[2])
    end
  end
  return taken
end

-- Else a list of ready ones that nobody pops from would grow with every message that expires, is taken back, or comes
-- back and is taken out.
local function trim()
  local taken = 0
  for priority in string.gmatch(ghosts > 0 and used or '', '%d') do
    taken = taken + trim_list(KEYS[14 + priority], message_at, TRIM_MAX - taken)
  end
  add_ghosts(-taken)
end

-- Puts a message that stands behind none of its group where it waits.
local function place(id, info)
  if (info.due or 0) > now then
    call('ZADD', DELAYED, info.due, id)
  else
    add_ready('RPUSH', id, info.p or 4)
  end
end

local function list_of(group)
  return EXTRA .. 'group:' .. group
end

-- A message of a group ended: the next one of the group takes its place. Behind too many ghosts it is looked for by the
-- next call, and the group has no first message meanwhile.
local group_ghosts_left = PASSED_MAX
local is_stuck = false
local function advance_group(group)
  repeat
    local id = call('LPOP', list_of(group))
    if not id then
      call('HDEL', GROUPS, group)
      return
    end
    if is_kept(id) then
      call('HSET', GROUPS, group, id)
      place(id, info_of(id))
      return
    end
    group_ghosts_left = group_ghosts_left - 1
  until group_ghosts_left <= 0
  call('HSET', GROUPS, group, '')
  call('SADD', STUCK, group)
  is_stuck = true
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
  if counted == 0 and behind then
    group_ghosts_left = group_ghosts_left - trim_list(list_of(info.g), is_kept, group_ghosts_left)
  elseif counted == 0 then
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
      if not of or not is_kept(of) then
        call('HDEL', DEDUP, name)
      end
    end
  end
  local stuck = call('SRANDMEMBER', STUCK, SWEEP_MAX)
  for _, group in ipairs(stuck) do
    if group_ghosts_left <= 0 then
      break
    end
    touch()
    call('SREM', STUCK, group)
    advance_group(group)
  end
  is_stuck = #stuck > 0 and call('EXISTS', STUCK) == 1
  some_due = some_due or is_stuck
  trim()
end

local function ready_length()
  local length = -ghosts
  for priority in string.gmatch(used, '%d') do
    length = length + call('LLEN', KEYS[14 + priority])
  end
  return length
end
