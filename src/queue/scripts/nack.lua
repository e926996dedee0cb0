-- Hands messages back before their deadline.
--
-- ARGV: count, then for each: sequence number, token, mode, delay in ms or '', reason
--   mode: c counts as a failure, u does not (nobody had got the message), d goes to the dead state; of u the delay
--   is the delivery that nobody got, since its pop may have got the message by a later one
-- Result: for each 1 (handed back) or 0 (the receipt is stale)
local nack_results = {}
local nack_count = take_number()
if nack_count > 0 then
  touch()
end
local nacks, leases = {}, {}
for i = 1, nack_count do
  nacks[i] = {take(), take(), take(), take(), take()}
  leases[i] = nacks[i][1]
end
leases = fields(LEASE, leases)
-- Which of them is carried out for a message that is named several times: the last one that found its receipt good.
-- None does after a holder's own.
local acting, ended = {}, {}
for i, nack in ipairs(nacks) do
  local id, token, mode, delay = unpack(nack)
  nack_results[i] = 0
  local delivery = lease_under(token, leases[i])
  local is_meant = mode ~= 'u' or tonumber(delay) == delivery
  if not ended[id] and delivery and is_meant then
    nack_results[i] = 1
    acting[id] = i
    ended[id] = mode ~= 'u'
  end
end
-- From the last to the first, each to the front: so they come out in the order in which they are named.
for i = nack_count, 1, -1 do
  local id, _, mode, delay, reason = unpack(nacks[i])
  if acting[id] == i then
    local lease = leases[i]
    local was_in_flight = take_out(id)
    if mode == 'd' then
      local _, deliveries, _, has_info, consumer = lease_parts(lease)
      record_failure(id, deliveries, consumer, reason)
      bury(id, has_info == 'i' and info_of(id) or {}, 'nack')
    elseif mode == 'u' then
      give_back(id, lease, false)
    else
      delay = tonumber(delay)
      if not was_in_flight then
        -- It came back before, and what that counted as is counted.
        local _, _, counted = lease_parts(lease)
        delay = delay or backoff(counted)
      end
      give_back(id, lease, was_in_flight, delay, reason, true)
    end
  end
end
