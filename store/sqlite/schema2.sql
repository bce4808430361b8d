-- What had ended when items of a run were last retried: its halt counts from
-- there, or a run that has halted could never be finished.
ALTER TABLE runs ADD COLUMN forgiven_succeeded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN forgiven_failed    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN forgiven_lost      INTEGER NOT NULL DEFAULT 0;
