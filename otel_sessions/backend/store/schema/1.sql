-- Times are Unix ns, durations ns, costs 1e-9 USD. Words that repeat are numbers into `names`.
-- A span's or log's id is `chunk << 24 | ordinal`: where it lies in the body it came in.

CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  revision INTEGER NOT NULL,
  next_chunk INTEGER NOT NULL,
  spans INTEGER NOT NULL,
  logs INTEGER NOT NULL,
  chunks INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, 0, 1, 0, 0, 0);

-- One request body. The body has a row of its own, so that counting `live` down rewrites few bytes.
CREATE TABLE chunks (
  id INTEGER PRIMARY KEY,
  received_at INTEGER NOT NULL,
  signal INTEGER NOT NULL,      -- 0 traces, 1 logs
  encoding INTEGER NOT NULL,    -- 0 protobuf, 1 JSON
  size INTEGER NOT NULL,        -- bytes of the body as it came
  live INTEGER NOT NULL         -- index rows that still point here
);
CREATE TABLE bodies (id INTEGER PRIMARY KEY, zstd BLOB NOT NULL);

CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);

CREATE TABLE spans (
  id INTEGER PRIMARY KEY,
  session INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  trace_id BLOB NOT NULL,
  span_id BLOB NOT NULL,
  parent_id BLOB NOT NULL,      -- empty for a root
  name INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  category INTEGER NOT NULL,    -- place in records.CATEGORIES
  start INTEGER NOT NULL,
  duration INTEGER,             -- NULL while the span is only announced
  status INTEGER NOT NULL,
  flags INTEGER NOT NULL,       -- records.Flag, and the bits of _rows.py
  size INTEGER NOT NULL,
  service INTEGER,
  task INTEGER,
  task_name INTEGER,
  task_parent INTEGER,
  task_state INTEGER,
  agent INTEGER,
  model INTEGER,
  tool INTEGER,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cached_tokens INTEGER,
  cost INTEGER,
  user INTEGER,
  conversation INTEGER,
  session_name INTEGER,
  title INTEGER,
  outcome INTEGER
);
CREATE UNIQUE INDEX spans_by_key ON spans (trace_id, span_id);
CREATE INDEX spans_by_session ON spans (session, revision);
-- For those who ask by service (Jaeger's API): newest first, and the names of each.
CREATE INDEX spans_by_service ON spans (service, start);
CREATE INDEX spans_by_operation ON spans (service, name, kind, start);
CREATE INDEX spans_open ON spans (session) WHERE duration IS NULL;
-- Model calls below model calls are one call: who of a pair comes later finds the other here.
CREATE INDEX spans_model_parents ON spans (trace_id, parent_id) WHERE category IN (3, 4);

CREATE TABLE logs (
  id INTEGER PRIMARY KEY,
  session INTEGER,              -- NULL where nothing tells
  digest BLOB NOT NULL UNIQUE,
  trace_id BLOB NOT NULL,       -- empty where absent
  span_id BLOB NOT NULL,
  time INTEGER NOT NULL,
  severity INTEGER NOT NULL,
  flags INTEGER NOT NULL,       -- the bits OWN and TURN of _rows.py
  category INTEGER,             -- place in records.CATEGORIES, where the log tells of a call
  event_name INTEGER,
  service INTEGER,
  model INTEGER,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cached_tokens INTEGER,
  cost INTEGER,
  user INTEGER
);
CREATE INDEX logs_by_session ON logs (session) WHERE session IS NOT NULL;
CREATE INDEX logs_by_trace ON logs (trace_id, span_id) WHERE trace_id <> x'';

-- The roll-up: what the list shows of a session, kept in the transaction that changes it.
CREATE TABLE sessions (
  no INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  key TEXT NOT NULL,
  session_id TEXT,
  name TEXT,
  title TEXT,
  service TEXT,
  user_id TEXT,
  conversation_id TEXT,
  state TEXT NOT NULL,          -- '' without any run: running or idle, by the reader's clock
  phase TEXT NOT NULL,
  signal TEXT NOT NULL,
  waiting_for TEXT,
  outcome TEXT,
  end_reason TEXT,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  last_seen_at INTEGER NOT NULL,
  runs_count INTEGER NOT NULL,
  spans INTEGER NOT NULL,
  errors INTEGER NOT NULL,
  traces_count INTEGER NOT NULL,
  tasks_count INTEGER NOT NULL,
  turns INTEGER,
  model_calls INTEGER NOT NULL,
  tool_calls INTEGER NOT NULL,
  agents TEXT NOT NULL,         -- JSON
  models TEXT NOT NULL,         -- JSON
  input_tokens INTEGER,
  output_tokens INTEGER,
  cached_tokens INTEGER,
  cost REAL,
  missing_spans INTEGER,
  inferred INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  own_seen INTEGER NOT NULL,    -- latest arrival of what told this session itself
  loose_seen INTEGER NOT NULL,  -- latest arrival of what is here by its trace
  words TEXT NOT NULL,          -- what the list's text filter looks into, case-folded
  tally TEXT NOT NULL           -- JSON: what the next commit adds to (_tally.py)
);
CREATE INDEX sessions_by_start ON sessions (started_at, id);
CREATE INDEX sessions_by_state ON sessions (state, started_at, id);
CREATE INDEX sessions_by_session_id ON sessions (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX sessions_without_run ON sessions (last_seen_at) WHERE state = '';

CREATE TABLE session_counts (state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE session_traces (session INTEGER, trace_id BLOB, PRIMARY KEY (session, trace_id)) WITHOUT ROWID;
CREATE TABLE session_tasks (session INTEGER, task INTEGER, PRIMARY KEY (session, task)) WITHOUT ROWID;

-- Traces with spans or logs that do not tell their session: where these live now, and who decided.
CREATE TABLE loose_traces (
  trace_id BLOB PRIMARY KEY,
  session INTEGER NOT NULL,
  decider TEXT,                 -- JSON: the rank of who tells the session; NULL: nobody does
  seen INTEGER NOT NULL         -- latest arrival of what does not tell
) WITHOUT ROWID;
CREATE INDEX loose_traces_by_session ON loose_traces (session);

-- Services that send this value as session.id, seen on anything.
CREATE TABLE global_ids (service TEXT, value TEXT, PRIMARY KEY (service, value)) WITHOUT ROWID;

-- Parents that spans of a session name and that are not stored.
CREATE TABLE missing_parents (
  trace_id BLOB, span_id BLOB, session INTEGER, PRIMARY KEY (trace_id, span_id, session)
) WITHOUT ROWID;
CREATE INDEX missing_parents_by_session ON missing_parents (session);

CREATE TABLE runs (
  session INTEGER NOT NULL,
  root_id BLOB NOT NULL,
  child_process TEXT NOT NULL,  -- '' for the run itself
  trace_id BLOB NOT NULL,
  process TEXT NOT NULL,
  phase TEXT NOT NULL,
  waiting_for TEXT,
  signal TEXT NOT NULL,
  outcome TEXT,
  end_reason TEXT,
  started_at INTEGER,
  ended_at INTEGER,
  resumed INTEGER NOT NULL,
  phase_seq INTEGER NOT NULL,
  beat_seq INTEGER NOT NULL,
  live_until INTEGER,
  lease_until INTEGER,
  interval INTEGER NOT NULL,
  lease INTEGER NOT NULL,
  previous_id TEXT,
  session_name TEXT,
  title TEXT,
  last_heard_at INTEGER,
  open_spans TEXT NOT NULL,     -- span ids in hex, comma between
  PRIMARY KEY (session, root_id, child_process)
) WITHOUT ROWID;
CREATE INDEX runs_open ON runs (process) WHERE phase <> 'ended';

CREATE TABLE timeline (
  session INTEGER, at INTEGER, root_id BLOB, state TEXT, detail TEXT,
  PRIMARY KEY (session, at, root_id, state, detail)
) WITHOUT ROWID;

CREATE TABLE gauges (
  session INTEGER, process TEXT, seq INTEGER, started INTEGER, ended INTEGER, dropped INTEGER,
  PRIMARY KEY (session, process)
) WITHOUT ROWID;

CREATE TABLE process_bases (process TEXT PRIMARY KEY, base INTEGER NOT NULL) WITHOUT ROWID;
