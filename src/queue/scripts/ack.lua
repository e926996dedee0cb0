-- Acknowledges messages: they are done and gone.
--
-- ARGV: count, then for each: sequence number, token, delivery, or 0 if the token was not made for this topic
-- Result, by runs with step 0: for each 1 (acked), 2 (was acked before) or 0 (the receipt is stale)
local ACKED_MS = 3600000    -- how long an acknowledgement is remembered
local BITS = 65536          -- acknowledgements of one bitmap

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

local ack_results = {}
local ack_count = take_number()
if ack_count > 0 then
  touch()
  local ids = {}
  for i = 1, ack_count do
    ids[i] = args[next_arg + 3 * (i - 1)]
  end
  local done, with_info, bits, is_done, leases = {}, {}, {}, {}, fields(LEASE, ids)
  for i = 1, ack_count do
    local id, token, delivery = take(), take(), take()
    local deliveries, has_info = lease_under(token, leases[i])
    local result
    if is_done[id] == token then
      result = 2
    elseif deliveries then
      is_done[id] = token
      done[#done + 1] = id
      if has_info == 'i' then
        with_info[#with_info + 1] = id
      end
      remember_ack(id, token, deliveries, has_info, bits)
      result = 1
    else
      result = is_acked(id, token, delivery) and 2 or 0
    end
    add_result(ack_results, result, 0)
  end
  if #done > 0 then
    local missing = #done - variadic('ZREM', LEASED, done)
    if missing > 0 then
      -- They had come back already, and wait to be handed out again.
      add_ghosts(missing - variadic('ZREM', DELAYED, done))
    end
    variadic('HDEL', LEASE, done)
    forget_left(done)
    local gone = 0
    for _, id in ipairs(counts_bytes and done or {}) do
      gone = gone + length_of(id)
    end
    variadic('HDEL', BODY, done)
    add_bytes(-gone)
    if call('EXISTS', ERRORS) == 1 then
      variadic('HDEL', ERRORS, done)
    end
    for _, id in ipairs(with_info) do
      forget_info(id, info_of(id))
    end
    for chunk, sets in pairs(bits) do
      local key = EXTRA .. 'acked:' .. chunk
      variadic('BITFIELD', key, sets)
      call('PEXPIRE', key, ACKED_MS)
    end
    call('HINCRBY', META, 'acked', text(#done))
  end
end
