-- Pushes that went through the gate, open and ended. A push never comes back under the number of another.
CREATE TABLE pushes (
    id            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,   -- shown to people; never used twice
    -- where it stands; changed by compare-and-set alone
    state         TEXT    NOT NULL CHECK (state IN ('received', 'checking', 'pending', 'approved', 'forwarding',
        'forwarded', 'blocked', 'rejected', 'canceled', 'expired', 'stale', 'failed')),
    repo          TEXT    NOT NULL,                             -- the repository's canonical name
    target_kind   TEXT    NOT NULL CHECK (target_kind IN ('hosted', 'upstream')), -- what `target` is
    target        BLOB    NOT NULL,                             -- a directory in the bytes of the system, or a URL
    pusher        TEXT    NOT NULL,                             -- a user's name, or what distinguishes somebody else
    verified      INTEGER NOT NULL CHECK (verified IN (0, 1)),  -- whether it is a user whose token was checked
    claimed       TEXT,                                         -- what somebody who is not verified calls himself
    options       TEXT    NOT NULL CHECK (json_valid(options)), -- the push options: a JSON list of strings
    on_disconnect TEXT    NOT NULL CHECK (on_disconnect IN ('cancel', 'keep')), -- what a lost client means
    created       INTEGER NOT NULL,                             -- milliseconds since 1970
    updated       INTEGER NOT NULL,                             -- milliseconds since 1970, of the last event
    -- milliseconds since 1970; open: when the gate acts by itself; failed: until when it may be retried; else NULL
    deadline      INTEGER,
    owner_boot    TEXT    NOT NULL,                             -- which life of the gate takes care of it, or did last
    owner_session INTEGER,                                      -- the session in that life that waits for it; NULL: none
    attempts      INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- forwards begun since it was approved or retried
    message       TEXT    NOT NULL,                             -- why it is where it is, for people
    upstream      TEXT,                                         -- what the target said, or git about the pack
    CHECK (deadline IS NOT NULL OR state NOT IN ('received', 'checking', 'pending', 'approved', 'forwarding')),
    CHECK (deadline IS NULL OR state IN ('received', 'checking', 'pending', 'approved', 'forwarding', 'failed'))
) STRICT;

-- Lists come newest first, filtered by any of these; what is due, what is open and what is old is found at once.
CREATE INDEX pushes_by_state ON pushes (state, id);
CREATE INDEX pushes_by_repo ON pushes (repo, id);
CREATE INDEX pushes_by_pusher ON pushes (pusher, id);
CREATE INDEX pushes_due ON pushes (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX pushes_over ON pushes (updated) WHERE deadline IS NULL;

-- What a push asks, and what came of each ref.
CREATE TABLE push_refs (
    push_id  INTEGER NOT NULL REFERENCES pushes (id) ON DELETE CASCADE, -- of which push
    position INTEGER NOT NULL,                                  -- the pusher's order, from 0
    name     TEXT    NOT NULL,                                  -- the ref's full name
    old      TEXT    NOT NULL CHECK (length(old) IN (40, 64)),  -- the value it had; zeros: it is to be made
    new      TEXT    NOT NULL CHECK (length(new) = length(old)), -- the value it is to have; zeros: it is to go
    answer   TEXT,                                              -- 'ok', or 'ng' and why not; NULL: not known
    PRIMARY KEY (push_id, position),
    UNIQUE (push_id, name)
) STRICT, WITHOUT ROWID;

-- Everything that happened to a push. Rows are only added; they go with the whole record.
CREATE TABLE push_events (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,      -- rises with every event of any push
    push_id    INTEGER NOT NULL REFERENCES pushes (id) ON DELETE CASCADE, -- to which push
    at         INTEGER NOT NULL,                                -- milliseconds since 1970
    actor      TEXT    NOT NULL,                                -- who made it happen
    event      TEXT,                                            -- what happened; NULL: it was received
    from_state TEXT,                                            -- where it stood; NULL: it was received
    to_state   TEXT    NOT NULL,                                -- where it stands since
    why        TEXT    NOT NULL,                                -- for people
    CHECK ((event IS NULL) = (from_state IS NULL))
) STRICT;

CREATE INDEX push_events_of_push ON push_events (push_id, id);

-- What the checks of a push found, written while it is being checked.
CREATE TABLE checks (
    push_id  INTEGER NOT NULL REFERENCES pushes (id) ON DELETE CASCADE, -- of which push
    position INTEGER NOT NULL,                                  -- the order in which they are shown, from 0
    name     TEXT    NOT NULL,                                  -- the check's name
    verdict  TEXT    NOT NULL CHECK (verdict IN ('pass', 'fail', 'unavailable')), -- how it ended
    findings TEXT    NOT NULL CHECK (json_valid(findings)),     -- every objection: a JSON list of the API's objects
    ms       INTEGER NOT NULL CHECK (ms >= 0),                  -- how long it took, in milliseconds
    PRIMARY KEY (push_id, position)
) STRICT, WITHOUT ROWID;

-- What a reviewer decided: once for each push, at most.
CREATE TABLE decisions (
    push_id     INTEGER NOT NULL PRIMARY KEY REFERENCES pushes (id) ON DELETE CASCADE, -- on which push
    ruling      TEXT    NOT NULL CHECK (ruling IN ('approve', 'reject')), -- what
    by          TEXT    NOT NULL,                               -- who
    reason      TEXT    NOT NULL,                               -- why; shown to the pusher
    is_override INTEGER NOT NULL CHECK (is_override IN (0, 1)), -- whether an administrator's right overrode a rule
    at          INTEGER NOT NULL,                               -- milliseconds since 1970
    CHECK (ruling = 'approve' OR trim(reason) <> '')
) STRICT;

-- The rest holds against mistakes of ours: what an approval is bound to does not change, ends stay ends, and the
-- events of a push are one unbroken chain.
CREATE TRIGGER pushes_are_bound
BEFORE UPDATE OF id, repo, target_kind, target, pusher, verified, claimed, options, on_disconnect, created ON pushes
BEGIN
    SELECT RAISE(ABORT, 'what a push is about never changes');
END;

-- Replacing a row would take its events with it, and ask no other trigger.
CREATE TRIGGER pushes_are_made_once
BEFORE INSERT ON pushes WHEN EXISTS (SELECT 1 FROM pushes WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'a push has one record');
END;

CREATE TRIGGER push_refs_are_bound
BEFORE UPDATE OF push_id, position, name, old, new ON push_refs
BEGIN
    SELECT RAISE(ABORT, 'what a push asks never changes');
END;

CREATE TRIGGER push_refs_stay
BEFORE DELETE ON push_refs WHEN EXISTS (SELECT 1 FROM pushes WHERE id = OLD.push_id)
BEGIN
    SELECT RAISE(ABORT, 'what a push asks goes with the whole record');
END;

CREATE TRIGGER push_ends_stay
BEFORE UPDATE OF state ON pushes
WHEN OLD.state NOT IN ('received', 'checking', 'pending', 'approved', 'forwarding')
    AND NOT (OLD.state = 'failed' AND NEW.state = 'approved' AND OLD.deadline IS NOT NULL)
BEGIN
    SELECT RAISE(ABORT, 'a push that has ended stays as it is');
END;

CREATE TRIGGER pushes_stay_until_they_are_over
BEFORE DELETE ON pushes WHEN OLD.deadline IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a push that is open or may be retried is not removed');
END;

CREATE TRIGGER push_events_follow
BEFORE INSERT ON push_events
WHEN NEW.to_state IS NOT (SELECT state FROM pushes WHERE id = NEW.push_id)
    OR NEW.from_state IS NOT (SELECT to_state FROM push_events WHERE push_id = NEW.push_id ORDER BY id DESC LIMIT 1)
    OR EXISTS (SELECT 1 FROM push_events WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'an event leads from where the push stood to where it stands');
END;

CREATE TRIGGER push_events_never_change
BEFORE UPDATE ON push_events
BEGIN
    SELECT RAISE(ABORT, 'what happened does not change');
END;

-- A row that goes with its push finds the push gone already.
CREATE TRIGGER push_events_stay
BEFORE DELETE ON push_events WHEN EXISTS (SELECT 1 FROM pushes WHERE id = OLD.push_id)
BEGIN
    SELECT RAISE(ABORT, 'what happened goes with the whole record');
END;

CREATE TRIGGER decisions_never_change
BEFORE UPDATE ON decisions
BEGIN
    SELECT RAISE(ABORT, 'a decision does not change');
END;

CREATE TRIGGER decisions_are_made_once
BEFORE INSERT ON decisions WHEN EXISTS (SELECT 1 FROM decisions WHERE push_id = NEW.push_id)
BEGIN
    SELECT RAISE(ABORT, 'a push has one decision');
END;

CREATE TRIGGER decisions_stay
BEFORE DELETE ON decisions WHEN EXISTS (SELECT 1 FROM pushes WHERE id = OLD.push_id)
BEGIN
    SELECT RAISE(ABORT, 'a decision goes with the whole record');
END;
