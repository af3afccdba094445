-- Who serves a model.
ALTER TABLE spans ADD COLUMN provider INTEGER;
ALTER TABLE logs ADD COLUMN provider INTEGER;

-- Tallies sum by provider and model: each is counted anew when it is next needed.
UPDATE sessions SET tally = '';

-- Few rows as a rule: what is counted here without a look at the others.
CREATE INDEX IF NOT EXISTS sessions_incomplete ON sessions (missing_spans) WHERE missing_spans > 0;
