-- How old, in milliseconds, what the upstream showed in the last sync that succeeded was by its own word: a mirror itself.
ALTER TABLE mirrors ADD COLUMN behind INTEGER NOT NULL DEFAULT 0 CHECK (behind >= 0);
