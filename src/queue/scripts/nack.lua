-- Hands messages back before their deadline.
--
-- ARGV: count, then for each: sequence number, token, mode, delay in ms or '', reason
--   mode: c counts as a failure, u does not (nobody had got the message), d goes to the dead state
-- Result: for each 1 (handed back) or 0 (the receipt is stale)
local nack_results = {}
local nack_count = take_number()
if nack_count > 0 then
  touch()
end
-- From the last to the first, each to the front: so they come out in the order in which they are named.
for i = nack_count, 1, -1 do
  local id, token, mode, delay, reason = unpack(args, next_arg + 5 * (i - 1), next_arg + 5 * i - 1)
  local lease = call('HGET', LEASE, id)
  local deliveries, has_info = lease_under(token, lease)
  nack_results[i] = 0
  if deliveries then
    nack_results[i] = 1
    local was_in_flight = take_out(id, has_info)
    if mode == 'd' then
      local _, _, _, _, consumer = lease_parts(lease)
      record_failure(id, deliveries, consumer, reason)
      bury(id, has_info == 'i' and info_of(id) or {}, 'nack')
    elseif mode == 'u' then
      give_back(id, lease, false)
    else
      delay = tonumber(delay)
      if not was_in_flight then
        -- That its deadline passed has counted as this delivery's failure.
        local _, _, counted = lease_parts(lease)
        delay = delay or backoff(counted)
      end
      give_back(id, lease, was_in_flight, delay, reason, true)
    end
  end
end
next_arg = next_arg + 5 * nack_count
