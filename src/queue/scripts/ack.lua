-- Acknowledges messages: they are done and gone.
--
-- ARGV: count, then for each: sequence number, token, delivery, or 0 if the token was not made for this topic
-- Result, by runs with step 0: for each 1 (acked), 2 (was acked before), 0 (the receipt is stale) or 3 (not
--   while Redis has no memory: more than a removal is to be done)
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
      if spare and (has_info == 'i' or not call('ZSCORE', LEASED, id)) then
        result = 3
      else
        is_done[id] = token
        done[#done + 1] = id
        if has_info == 'i' then
          with_info[#with_info + 1] = id
        end
        if not spare then
          remember_ack(id, token, deliveries, has_info, bits)
        end
        result = 1
      end
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
    if not spare then
      call('HINCRBY', META, 'acked', text(#done))
    end
  end
end
