-- Takes a message back by its id, unless it is in flight, done or dead.
--
-- ARGV: id, and the sequence number that it stands for if no push gave it, or 0
-- Result: {'ok', operation sequence, sequence, bytes, 1 or 0}
local function stands(id)
  return id and is_kept(id) and not call('ZSCORE', LEASED, id) and not call('ZSCORE', DEAD, id)
end
-- The name is free again: what was taken back was never delivered.
local function free(name, id)
  if name and number_in(call('HGET', DEDUP, name) or '') == id then
    call('HDEL', DEDUP, name)
    call('ZREM', DEDUP_UNTIL, name)
  end
end
local function take_back(id)
  local info = info_of(id)
  touch()
  remove(id, info)
  free(info.i, id)
  free(info.k, id)
  trim()
end
local name, number = take(), take()
local cancelled = 0
local id = number_in(call('HGET', DEDUP, name) or '')
if stands(id) then
  cancelled = 1
  take_back(id)
elseif stands(number) and not info_of(number).i then
  cancelled = 1
  take_back(number)
end
return {'ok', opseq, seq, kept_bytes, cancelled}
