-- What every publisher, this gate among them, has said last of each repository.
CREATE TABLE versions (
    repo        TEXT    NOT NULL,                               -- how the fleet calls the repository
    incarnation TEXT    NOT NULL CHECK (length(incarnation) = 32), -- who says so
    seq         INTEGER NOT NULL CHECK (seq > 0),               -- the number of the change, counted by that publisher
    digest      TEXT    CHECK (length(digest) = 64),            -- SHA-256 of the refs after it; NULL: not known
    removed     INTEGER NOT NULL CHECK (removed IN (0, 1)),     -- whether the change was the removal
    at          INTEGER NOT NULL,                               -- milliseconds since 1970, when it was noted here
    PRIMARY KEY (repo, incarnation)
) STRICT, WITHOUT ROWID;

-- The refs of each repository as they were when they were last looked at and told, if there was something to tell.
CREATE TABLE known_refs (
    repo   TEXT NOT NULL PRIMARY KEY,                           -- the repository's canonical name here
    digest TEXT NOT NULL CHECK (length(digest) = 64)            -- SHA-256 of the refs
) STRICT, WITHOUT ROWID;

-- Changes of refs that may be under way: a row is there before they move, and goes with the version that tells of it.
CREATE TABLE ref_intents (
    id   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,            -- never used twice, so that a late end hits nothing else
    repo TEXT    NOT NULL,                                      -- the repository's canonical name here
    made INTEGER NOT NULL                                       -- milliseconds since 1970
) STRICT;

-- What happened lately, for whoever listens and was away.
CREATE TABLE events (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,          -- its place in the stream; never used twice
    event  TEXT    NOT NULL,                                    -- its name
    repo   TEXT    NOT NULL,                                    -- the canonical name here of the repository that it is about
    pusher TEXT,                                                -- whose push it was; NULL: none
    at     INTEGER NOT NULL,                                    -- milliseconds since 1970
    body   TEXT    NOT NULL CHECK (json_valid(body))            -- what is said of it
) STRICT;

CREATE INDEX events_by_time ON events (at);

-- What is to be published and has not been acknowledged yet.
CREATE TABLE outbox (
    id       INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,        -- the order of publication
    sink     TEXT    NOT NULL,                                  -- where to
    repo     TEXT    NOT NULL,                                  -- how the fleet calls the repository
    event    TEXT    NOT NULL,                                  -- the event's name
    first    INTEGER,                                           -- the first change that the row stands for; NULL: no change
    seq      INTEGER,                                           -- the last one
    delivery TEXT    NOT NULL CHECK (length(delivery) = 32),    -- random, the same at every attempt
    made     INTEGER NOT NULL,                                  -- milliseconds since 1970
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- deliveries that failed
    error    TEXT,                                              -- why the last one did
    body     TEXT    NOT NULL CHECK (json_valid(body)),         -- what is said of it
    CHECK ((first IS NULL) = (seq IS NULL)),
    CHECK (first <= seq)
) STRICT;

CREATE INDEX outbox_of_sink ON outbox (sink, id);

CREATE INDEX outbox_of_repo ON outbox (sink, repo);
