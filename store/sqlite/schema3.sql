-- Workers can be agents on other machines, and submissions can be repeated.
ALTER TABLE leases ADD COLUMN worker  TEXT    NOT NULL DEFAULT ''; -- name of the agent; '': the owner's own worker
ALTER TABLE leases ADD COLUMN process INTEGER NOT NULL DEFAULT 0;  -- of that agent

-- The submitter's name for the run: a second submission of it is the same run.
ALTER TABLE runs ADD COLUMN key TEXT;
CREATE UNIQUE INDEX runs_key ON runs (key) WHERE key IS NOT NULL;

-- Runs that are not over are few among those that are kept.
CREATE INDEX runs_unfinished ON runs (id) WHERE state IN (1, 2, 3);
