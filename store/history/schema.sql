-- A look is a frame: what has changed since the look before it, packed. Times are
-- seconds since 1970.

CREATE TABLE series (
  id        INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: frames name it
  kind      TEXT NOT NULL,
  namespace TEXT NOT NULL,
  family    TEXT NOT NULL,
  origin    TEXT NOT NULL,
  manager   TEXT NOT NULL
) STRICT;

CREATE TABLE frames (
  at   INTEGER PRIMARY KEY,
  data BLOB NOT NULL -- see frame.go
) STRICT;

-- When somebody looked. Between two of these nothing is known.
CREATE TABLE spans (
  start INTEGER PRIMARY KEY,
  until INTEGER NOT NULL
) STRICT;

CREATE TABLE findings (
  id    TEXT PRIMARY KEY,
  since INTEGER NOT NULL,
  ended INTEGER NOT NULL, -- 0: it goes on
  data  TEXT    NOT NULL  -- JSON of bulkhead.Finding
) STRICT;
