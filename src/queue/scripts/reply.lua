-- The end of a batch.
return {'ok', opseq, seq, kept_bytes, now_text, pop_count > 0 and text(next_due()) or '0',
  ready_left, pops_left, paused and 1 or 0, ack_results, nack_results, extend_results, push_results, deadlines, popped,
  buried, some_due and 1 or 0}
