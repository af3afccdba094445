-- Sessions that retention leaves alone, by our id.
CREATE TABLE IF NOT EXISTS pins (id TEXT PRIMARY KEY) WITHOUT ROWID;

-- Sessions that are gone, of which index rows are still to be deleted: too many for one transaction.
CREATE TABLE IF NOT EXISTS removals (session INTEGER PRIMARY KEY);

-- What retention looks at: the longest unseen first.
CREATE INDEX IF NOT EXISTS sessions_at_rest ON sessions (last_seen_at) WHERE state IN ('ended', 'lost');
CREATE INDEX IF NOT EXISTS logs_of_nobody ON logs (id) WHERE session IS NULL;
-- Which other sessions have a part in a trace.
CREATE INDEX IF NOT EXISTS session_traces_by_trace ON session_traces (trace_id);
