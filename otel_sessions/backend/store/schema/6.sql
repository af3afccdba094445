-- Why spans are lost, by each process's own account (losses.told).
ALTER TABLE gauges ADD COLUMN losses TEXT NOT NULL DEFAULT '';
