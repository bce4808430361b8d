-- What ended lately is asked for by every look at what has happened.
CREATE INDEX runs_finished ON runs (finished) WHERE finished > 0;
