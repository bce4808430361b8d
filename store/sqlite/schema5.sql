-- A brake is a verdict that a person gave: it stays until it is lifted or has expired.
-- Who gives another one on the same scope changes the one that there is.
CREATE TABLE brakes (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  kind    TEXT    NOT NULL, -- of the scope, see bulkhead.ScopeKind
  name    TEXT    NOT NULL, -- likewise
  factor  REAL    NOT NULL, -- 0: nothing starts
  reason  TEXT    NOT NULL,
  owner   TEXT    NOT NULL,
  since   INTEGER NOT NULL,
  expires INTEGER NOT NULL, -- 0: never
  UNIQUE (kind, name, owner)
) STRICT;
