-- Which tools a session called: names in JSON, as agents and models are. Logs may tell them too.
ALTER TABLE sessions ADD COLUMN tools TEXT NOT NULL DEFAULT '[]';
ALTER TABLE logs ADD COLUMN tool INTEGER;

-- Why a span failed, and a session; when the last of its spans ended.
ALTER TABLE spans ADD COLUMN failure INTEGER;
ALTER TABLE sessions ADD COLUMN error TEXT;
ALTER TABLE sessions ADD COLUMN last_ended_at INTEGER;
UPDATE sessions SET last_ended_at = ifnull(
  (SELECT max(start + duration) FROM spans WHERE spans.session = sessions.no),
  (SELECT max(time) FROM logs WHERE logs.session = sessions.no)
);

-- Tallies hold more than they did: each is counted anew when it is next needed.
UPDATE sessions SET tally = '';

-- The first databases of version 1 lack these.
CREATE INDEX IF NOT EXISTS spans_by_service ON spans (service, start);
CREATE INDEX IF NOT EXISTS spans_by_operation ON spans (service, name, kind, start);
