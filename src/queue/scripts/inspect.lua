-- Counts the messages of a topic, and shows some. Changes nothing.
--
-- ARGV: state to show (ready, delayed, in_flight, dead) or '', how many at most, cursor (how many to
--   pass over), bytes at most
-- Result: {'ok', operation sequence, sequence, now, ready, delayed, in flight, dead, 1 if paused,
--   push time of the oldest that waits or 0, acked, settings, shown}; shown has for each: sequence
--   number, what is kept of it, due time or deadline or time of death or 0, deliveries, consumer or
--   '', why it is dead or '', failures in MessagePack or ''
local state, most, cursor, bytes = take(), take_number(), take_number(), take_number()
local live = call('HLEN', BODY)
local delayed, in_flight, dead = call('ZCARD', DELAYED), call('ZCARD', LEASED), call('ZCARD', DEAD)
-- Messages behind others of their group count as ready: nothing but their turn is missing.
local ready = live - delayed - in_flight - dead
local oldest = 0
local function note_oldest(id)
  local body = id and call('HGET', BODY, id)
  local at = body and tonumber(string.sub(body, 1, 13))
  if at and (oldest == 0 or at < oldest) then
    oldest = at
  end
end
for priority in string.gmatch(used, '%d') do
  for _, id in ipairs(call('LRANGE', KEYS[14 + priority], 0, 9)) do
    note_oldest(id)
  end
end
note_oldest(call('ZRANGE', LEASED, 0, 0)[1])
local shown = {}
local function show(id, at)
  local body = call('HGET', BODY, id)
  if not body then
    return
  end
  local lease = call('HGET', LEASE, id)
  local deliveries, consumer = 0, ''
  if lease then
    local _
    _, deliveries, _, _, consumer = lease_parts(lease)
  end
  local n = #shown
  shown[n + 1], shown[n + 2], shown[n + 3] = id, body, at
  shown[n + 4], shown[n + 5] = deliveries, consumer
  shown[n + 6] = info_of(id).why or ''
  shown[n + 7] = call('HGET', ERRORS, id) or ''
  bytes = bytes - #body
end
local passed = 0
if state == 'ready' then
  for priority = 9, 0, -1 do
    local key = KEYS[14 + priority]
    local length = call('LLEN', key)
    local from = math.max(cursor - passed, 0)
    if from < length and #shown / 7 < most then
      for _, id in ipairs(call('LRANGE', key, from, from + most - #shown / 7 - 1)) do
        if bytes <= 0 then
          break
        end
        show(id, '0')
        cursor = cursor + 1
      end
    end
    passed = passed + length
  end
elseif state ~= '' then
  local key = ({delayed = DELAYED, in_flight = LEASED, dead = DEAD})[state]
  local found = call('ZRANGE', key, cursor, cursor + most - 1, 'WITHSCORES')
  passed = call('ZCARD', key)
  for i = 1, #found, 2 do
    if bytes <= 0 then
      break
    end
    show(found[i], found[i + 1])
    cursor = cursor + 1
  end
end
local counters = call('HMGET', META, 'acked')
return {'ok', opseq, seq, string.format('%.0f', now), ready, delayed, in_flight, dead, paused and 1 or 0,
  oldest, tonumber(counters[1] or 0), call('HGETALL', SETTINGS), shown, cursor < passed and cursor or -1}
