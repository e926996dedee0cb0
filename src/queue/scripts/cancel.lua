-- Takes a message back by its id, unless it is in flight, done or dead.
--
-- ARGV: id, or '' and a sequence number
-- Result: {'ok', operation sequence, sequence, bytes, 1 or 0}
local name, id = take(), take()
if name ~= '' then
  id = string.match(call('HGET', DEDUP, name) or '', '^%d+')
end
local cancelled = 0
if id and call('HEXISTS', BODY, id) == 1 and not call('ZSCORE', LEASED, id)
  and not call('ZSCORE', DEAD, id) then
  touch()
  cancelled = 1
  remove(id, info_of(id))
  if name ~= '' then
    -- The id is free again: what was taken back was never delivered.
    call('HDEL', DEDUP, name)
    call('ZREM', DEDUP_UNTIL, name)
  end
end
return {'ok', opseq, seq, kept_bytes, cancelled}
