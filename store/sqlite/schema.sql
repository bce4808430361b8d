-- A run is a row; its items are chunks; what happened to an item is a row of
-- attempts. Times are microseconds: of runs since 1970, of attempts since the
-- creation of their run (which keeps a row short). 0 and 1 take no room in a
-- SQLite row, so the commonest value of each column is one of them.

CREATE TABLE runs (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  spec           TEXT    NOT NULL, -- JSON of bulkhead.Spec
  columns        INTEGER NOT NULL, -- values per item
  state          INTEGER NOT NULL,
  held           INTEGER NOT NULL DEFAULT 0,
  reason         TEXT    NOT NULL DEFAULT '',
  queued         INTEGER NOT NULL DEFAULT 0,
  running        INTEGER NOT NULL DEFAULT 0,
  succeeded      INTEGER NOT NULL DEFAULT 0,
  failed         INTEGER NOT NULL DEFAULT 0,
  lost           INTEGER NOT NULL DEFAULT 0,
  cancelled      INTEGER NOT NULL DEFAULT 0,
  hash           TEXT    NOT NULL DEFAULT '',
  created        INTEGER NOT NULL,
  started        INTEGER NOT NULL DEFAULT 0,
  finished       INTEGER NOT NULL DEFAULT 0,
  exit_code      INTEGER NOT NULL DEFAULT 0,
  item_limit     INTEGER NOT NULL,
  next           INTEGER NOT NULL DEFAULT 1,
  tail_cancelled INTEGER NOT NULL DEFAULT 0,
  ending         INTEGER NOT NULL DEFAULT 0,
  canary_done    INTEGER NOT NULL DEFAULT 0,
  mark           INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE chunks (
  run   INTEGER NOT NULL,
  first INTEGER NOT NULL, -- index of its first item
  count INTEGER NOT NULL,
  data  BLOB    NOT NULL, -- see package chunk
  PRIMARY KEY (run, first)
) STRICT;

-- Live leases only. What a pool has in use is derived from these.
CREATE TABLE leases (
  run     INTEGER NOT NULL,
  item    INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  token   INTEGER NOT NULL,
  slot    INTEGER NOT NULL,
  since   INTEGER NOT NULL,
  segment INTEGER NOT NULL,
  offset  INTEGER NOT NULL,
  PRIMARY KEY (run, item)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  run      INTEGER NOT NULL,
  item     INTEGER NOT NULL,
  n        INTEGER NOT NULL,
  final    INTEGER NOT NULL, -- 1: decides the item's state; 0: the item was queued again
  state    INTEGER NOT NULL,
  how      INTEGER NOT NULL,
  code     INTEGER NOT NULL,
  signal   INTEGER NOT NULL,
  error    TEXT,
  started  INTEGER NOT NULL,
  duration INTEGER NOT NULL,
  cpu      INTEGER NOT NULL,
  memory   INTEGER NOT NULL, -- KiB
  segment  INTEGER NOT NULL,
  offset   INTEGER NOT NULL,
  length   INTEGER NOT NULL,
  bytes    INTEGER NOT NULL,
  dropped  INTEGER NOT NULL,
  PRIMARY KEY (run, item, n)
) STRICT, WITHOUT ROWID;

-- Failed, lost and cancelled items are few; finding them must not read the rest.
CREATE INDEX attempts_not_succeeded ON attempts (run, state, item) WHERE final = 1 AND state <> 0;

CREATE TABLE requeued (
  run     INTEGER NOT NULL,
  item    INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  due     INTEGER NOT NULL,
  PRIMARY KEY (run, item)
) STRICT, WITHOUT ROWID;

CREATE INDEX requeued_due ON requeued (run, due, item);

CREATE TABLE requests (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  run       INTEGER NOT NULL,
  kind      TEXT    NOT NULL,
  by        TEXT    NOT NULL,
  at        INTEGER NOT NULL,
  item_limit INTEGER NOT NULL DEFAULT 0,
  selection TEXT    NOT NULL DEFAULT '{}' -- JSON of bulkhead.Selection
) STRICT;

CREATE INDEX requests_run ON requests (run, id);
