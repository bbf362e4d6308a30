-- How the syncs of mirrors went. The mirror itself is a directory: a row without one could not be made yet, a directory
-- without a row was not synced since this table is there.
CREATE TABLE mirrors (
    repo      TEXT    NOT NULL PRIMARY KEY,                     -- the repository's canonical name
    attempted INTEGER NOT NULL,                                 -- milliseconds since 1970, when the last sync began
    succeeded INTEGER,                                          -- when the last one began that succeeded; NULL: none did
    failures  INTEGER NOT NULL CHECK (failures >= 0),           -- syncs that failed since then
    error     TEXT,                                             -- why the last one failed; NULL: it succeeded
    due       INTEGER,                                          -- milliseconds since 1970, when the schedule comes to it; NULL: never
    bytes     INTEGER NOT NULL CHECK (bytes >= 0),              -- what it takes on the disk
    CHECK ((error IS NULL) = (failures = 0)),
    CHECK (succeeded IS NOT NULL OR error IS NOT NULL)
) STRICT, WITHOUT ROWID;
