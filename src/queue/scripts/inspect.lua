-- Counts the messages of a topic, and shows some. Changes nothing.
--
-- ARGV: state to show (ready, delayed, in_flight, dead; all: by sequence number) or '', how many at
--   most, cursor (how many to pass over; of all: the sequence number to begin behind), bytes at most
-- Result: {'ok', operation sequence, sequence, bytes, now, ready, delayed, in flight, dead, 1 if paused,
--   push time of the oldest that is ready or in flight, or 0, acked, settings, shown, cursor to go on with or -1, 1 if time
--   has something to do}; shown has for each: sequence number, what is kept of it, state, due time or
--   deadline or time of death or 0, deliveries, consumer or '', why it is dead or '', failures in
--   MessagePack or ''. Of all, the cursor is the number up to which was looked, also at the end
local PARTS = 8             -- of a message that is shown
local LOOK_MAX = 5000       -- sequence numbers that one call looks at: a few milliseconds
local OLD_MAX = 1000        -- messages of a whole topic, or of one place, among which the oldest is looked for
local state, most, cursor, bytes = take(), take_number(), take_number(), take_number()
local live = call('HLEN', BODY)
-- What is due is ready, though its owner has not looked yet.
local delayed, in_flight = call('ZCOUNT', DELAYED, '(' .. now_text, '+inf'), call('ZCOUNT', LEASED, '(' .. now_text, '+inf')
local dead = call('ZCARD', DEAD)
-- Messages behind others of their group count as ready: nothing but their turn is missing.
local ready = live - delayed - in_flight - dead
-- The number of the oldest message that is ready or in flight: of all if they are few, else of those that stand first
-- in each place. Those that were pushed earlier have lower numbers.
local oldest
local function is_ready_or_in_flight(id)
  local due = call('ZSCORE', DELAYED, id)
  return not (due and tonumber(due) > now) and not call('ZSCORE', DEAD, id)
end
local function note_oldest(entries, counts)
  for _, entry in ipairs(entries) do
    local number = tonumber(number_in(entry))
    if (not oldest or number < oldest) and counts(entry) then
      oldest = number
    end
  end
end
if live <= OLD_MAX then
  note_oldest(call('HKEYS', BODY), is_ready_or_in_flight)
elseif ready + in_flight > 0 then
  for priority in string.gmatch(used, '%d') do
    note_oldest(call('LRANGE', KEYS[14 + priority], 0, OLD_MAX - 1), message_at)
  end
  note_oldest(call('ZRANGE', LEASED, 0, OLD_MAX - 1), is_kept)
end
local oldest_body = oldest and call('HGET', BODY, text(oldest))
local oldest_at = oldest_body and tonumber(string.sub(oldest_body, 1, 13)) or 0
local shown = {}
local function show(id, state, at)
  local body = call('HGET', BODY, id)
  if not body then
    return
  end
  local lease, info = call('HGET', LEASE, id), info_of(id)
  local deliveries, consumer = info.n or 0, ''
  if lease then
    local _
    _, deliveries, _, _, consumer = lease_parts(lease)
  end
  local n = #shown
  shown[n + 1], shown[n + 2], shown[n + 3], shown[n + 4] = id, body, state, at
  shown[n + 5], shown[n + 6] = deliveries, consumer
  shown[n + 7] = info.why or ''
  shown[n + 8] = call('HGET', ERRORS, id) or ''
  bytes = bytes - #body - #shown[n + 8]
end
local function is_full()
  return bytes <= 0 or #shown / PARTS >= most
end
-- Whether the answer has room for this message. The first is shown however large it is.
local function has_room(id)
  return #shown == 0 or call('HSTRLEN', BODY, id) + call('HSTRLEN', ERRORS, id) <= bytes
end
local function show_wherever(id)
  for _, place in ipairs({{'in_flight', LEASED}, {'delayed', DELAYED}, {'dead', DEAD}}) do
    local at = call('ZSCORE', place[2], id)
    if at then
      return show(id, place[1], at)
    end
  end
  show(id, 'ready', '0')
end
-- The sequence numbers above the cursor that may have a message, in order, and up to which number these
-- are all: where few messages are left, whatever the numbers between them, else the next numbers.
local function numbers_above()
  local numbers = {}
  if live <= LOOK_MAX then
    for _, id in ipairs(call('HKEYS', BODY)) do
      local number = tonumber(id)
      if number > cursor then
        numbers[#numbers + 1] = number
      end
    end
    table.sort(numbers)
    return numbers, seq
  end
  local last = math.min(cursor + LOOK_MAX, seq)
  for number = cursor + 1, last do
    numbers[#numbers + 1] = number
  end
  return numbers, last
end
local passed = 0
if state == 'ready' then
  for priority = 9, 0, -1 do
    local key = KEYS[14 + priority]
    local length = call('LLEN', key)
    local from = math.max(cursor - passed, 0)
    if from < length and not is_full() then
      for _, entry in ipairs(call('LRANGE', key, from, from + most - #shown / PARTS - 1)) do
        local id = message_at(entry)
        if id and not has_room(id) then
          bytes = 0
          break
        end
        if id then
          show(id, state, '0')
        end
        cursor = cursor + 1
      end
    end
    passed = passed + length
  end
elseif state == 'all' then
  local numbers, last = numbers_above()
  for _, number in ipairs(numbers) do
    if is_full() or not has_room(text(number)) then
      last = number - 1
      break
    end
    show_wherever(text(number))
  end
  cursor = math.max(cursor, last)
  passed = cursor + 1
elseif state ~= '' then
  local key = ({delayed = DELAYED, in_flight = LEASED, dead = DEAD})[state]
  local found = call('ZRANGE', key, cursor, cursor + most - 1, 'WITHSCORES')
  passed = call('ZCARD', key)
  for i = 1, #found, 2 do
    if not has_room(found[i]) then
      break
    end
    show(found[i], state, found[i + 1])
    cursor = cursor + 1
  end
end
local function is_due(key)
  local at = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return at and tonumber(at) <= now
end
local counters = call('HMGET', META, 'acked')
return {'ok', opseq, seq, kept_bytes, now_text, ready, delayed, in_flight, dead, paused and 1 or 0,
  oldest_at, tonumber(counters[1] or 0), call('HGETALL', SETTINGS), shown, cursor < passed and cursor or -1,
  (is_due(DELAYED) or is_due(LEASED) or is_due(TTL)) and 1 or 0}
