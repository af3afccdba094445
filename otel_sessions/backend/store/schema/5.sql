-- When a session without any run was last alive, by our clock, and the paces that tell it (lifecycle.Pace, in JSON).
ALTER TABLE sessions ADD COLUMN last_alive_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN paces TEXT NOT NULL DEFAULT '';
UPDATE sessions SET last_alive_at = CASE
  WHEN runs_count > 0 THEN last_seen_at ELSE min(last_seen_at, ifnull(last_ended_at, last_seen_at)) END;

-- Who was seen lately: only these can be running, for nobody is alive later than seen.
DROP INDEX IF EXISTS sessions_without_run;
CREATE INDEX sessions_without_run ON sessions (last_seen_at, last_alive_at) WHERE state = '';
