-- Whether the upstream has refused the repository to the gate itself since it last gave it anything: 1 if so.
ALTER TABLE mirrors ADD COLUMN denied INTEGER NOT NULL DEFAULT 0 CHECK (denied IN (0, 1));
