-- Moves deadlines of messages in flight, and of those that came back when it passed and that nobody else got.
--
-- ARGV: count, then for each: sequence number, token, visibility in ms from now
-- Result: for each the new deadline, or 0 (the receipt is stale)
local extend_results = {}
local extend_count = take_number()
if extend_count > 0 then
  touch()
end
for i = 1, extend_count do
  local id, token, visibility = take(), take(), take_number()
  local deliveries = lease_under(token, call('HGET', LEASE, id))
  extend_results[i] = 0
  if deliveries then
    take_out(id)
    call('ZADD', LEASED, now + visibility, id)
    extend_results[i] = now + visibility
  end
end
