-- Where the upstream said at the last sync, which failed for that, that the repository is now; '': it did not say where.
-- NULL: it did not say that the repository is elsewhere.
ALTER TABLE mirrors ADD COLUMN moved_to TEXT CHECK (moved_to IS NULL OR error IS NOT NULL);
