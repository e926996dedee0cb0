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
for i = 1, nack_count do
  local id, token, mode, delay, reason = take(), take(), take(), tonumber(take()), take()
  local lease = call('HGET', LEASE, id)
  nack_results[i] = 0
  if lease_under(token, lease) and call('ZREM', LEASED, id) == 1 then
    nack_results[i] = 1
    if mode == 'd' then
      local _, deliveries, _, has_info, consumer = lease_parts(lease)
      record_failure(id, deliveries, consumer, reason)
      bury(id, has_info == 'i' and info_of(id) or {}, 'nack')
    else
      give_back(id, lease, mode == 'c', delay, reason)
    end
  end
end
