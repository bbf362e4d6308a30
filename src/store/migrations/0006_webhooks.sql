-- Webhooks that answered 410: nothing is posted to them any more, until their address is another one.
CREATE TABLE disabled_webhooks (
    name TEXT    NOT NULL PRIMARY KEY,                          -- what the configuration calls the webhook
    url  BLOB    NOT NULL CHECK (length(url) = 32),             -- SHA-256 of the address at which it said so
    why  TEXT    NOT NULL,                                      -- for people
    at   INTEGER NOT NULL                                       -- milliseconds since 1970
) STRICT, WITHOUT ROWID;
