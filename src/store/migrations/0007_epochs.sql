-- Which epoch was met last at each server that all gates of a fleet tell of their changes.
CREATE TABLE epochs (
    server TEXT NOT NULL PRIMARY KEY,                           -- its address, without a password
    epoch  TEXT NOT NULL CHECK (length(epoch) = 32)             -- random, made by whoever found the server without one
) STRICT, WITHOUT ROWID;
