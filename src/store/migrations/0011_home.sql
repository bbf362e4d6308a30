-- Which file this database was at the last start of the gate: a copy is another publisher.
ALTER TABLE gate ADD COLUMN born INTEGER;                       -- nanoseconds since 1970, when the file was made; NULL: not known
ALTER TABLE gate ADD COLUMN machine BLOB CHECK (length(machine) = 32); -- a keyed hash of the machine's identity; NULL: not known
