-- This database's own identity. One row, made with the database.
CREATE TABLE gate (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),    -- there is one gate
    incarnation BLOB    NOT NULL CHECK (length(incarnation) = 16), -- random: a wiped disk is another publisher
    key_check   BLOB    NOT NULL CHECK (length(key_check) = 32), -- a keyed hash of nothing: tells whether secret.key is ours
    created     INTEGER NOT NULL                                -- milliseconds since 1970
) STRICT;

-- People and machines that may log in.
CREATE TABLE users (
    id      INTEGER NOT NULL PRIMARY KEY,                       -- what tokens refer to
    name    TEXT    NOT NULL UNIQUE COLLATE NOCASE,             -- as written; no two differ in case alone
    -- each with the rights of those before it
    role    TEXT    NOT NULL CHECK (role IN ('reader', 'pusher', 'reviewer', 'admin')),
    created INTEGER NOT NULL                                    -- milliseconds since 1970
) STRICT;

-- What they log in with. The token itself is nowhere.
CREATE TABLE tokens (
    id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,       -- shown to people; never used twice
    -- whose it is; it goes with him
    user_id   INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash      BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- HMAC-SHA256 of the token under secret.key
    label     TEXT    NOT NULL,                                 -- what its owner calls it; may be empty
    created   INTEGER NOT NULL,                                 -- milliseconds since 1970
    last_used INTEGER,                                          -- milliseconds since 1970, at most a minute behind; NULL: never
    expires   INTEGER                                           -- milliseconds since 1970, from then on it is refused; NULL: never
) STRICT;

CREATE INDEX tokens_of_user ON tokens (user_id);

-- Writes of ours that are under way in hosted repositories. A row of an earlier boot says where a killed gate may have
-- left locks and temporary files.
CREATE TABLE writes (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,         -- never used twice, so that a late end hits nothing else
    repo    BLOB    NOT NULL,                                   -- the repository's absolute path, in the bytes of the system
    boot    TEXT    NOT NULL,                                   -- which life of the gate began it
    refs    TEXT    NOT NULL CHECK (json_valid(refs)),          -- the refs it may touch: a JSON list of strings
    started INTEGER NOT NULL                                    -- milliseconds since 1970; what is older is not ours
) STRICT;
