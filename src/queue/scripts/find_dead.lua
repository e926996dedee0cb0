-- Finds dead messages by their ids. Changes nothing.
--
-- ARGV: how many dead ones to pass over, how many to look at, count of ids, the ids (of a message that was pushed
--   without, `seq-` and its number)
-- Result: {'ok', operation sequence, sequence, bytes, sequence numbers, 1 if more are left to look at}
local from, most = take_number(), take_number()
local wanted = {}
for _ = 1, take_number() do
  wanted[take()] = true
end
local ids = call('ZRANGE', DEAD, from, from + most - 1)
local infos = fields(INFO, ids)
local found = {}
for i, id in ipairs(ids) do
  local name = infos[i] and cmsgpack.unpack(infos[i]).i or 'seq-' .. id
  if wanted[name] then
    found[#found + 1] = id
  end
end
return {'ok', opseq, seq, kept_bytes, found, #ids == most and 1 or 0}
