-- Takes a message back by its id, unless it is in flight, done or dead.
--
-- ARGV: id, and the sequence number that it stands for if no push gave it, or 0
-- Result: {'ok', operation sequence, sequence, bytes, 1 or 0}
local function stands(id)
  return id and call('HEXISTS', BODY, id) == 1 and not call('ZSCORE', LEASED, id) and not call('ZSCORE', DEAD, id)
end
local name, number = take(), take()
local cancelled = 0
local id = string.match(call('HGET', DEDUP, name) or '', '^%d+')
if stands(id) then
  touch()
  cancelled = 1
  remove(id, info_of(id))
  -- The id is free again: what was taken back was never delivered.
  call('HDEL', DEDUP, name)
  call('ZREM', DEDUP_UNTIL, name)
elseif stands(number) and not info_of(number).i then
  touch()
  cancelled = 1
  remove(number, info_of(number))
end
return {'ok', opseq, seq, kept_bytes, cancelled}
