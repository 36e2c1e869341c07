-- Schema 2: the outbox as a state machine, and chats that cannot be reached. SQLite cannot change a CHECK in place, so
-- the table is made anew under its old name; rows keep their ids.

CREATE TABLE outbox_2 (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    ours        TEXT NOT NULL UNIQUE,            -- our own id of the part, the same at every repeat
    chat        TEXT NOT NULL,
    voice       TEXT NOT NULL CHECK (voice IN ('reply', 'notice')),
    turn        INTEGER REFERENCES turn(id),
    key         TEXT NOT NULL,                   -- the letter's id, or notice:<word>
    part        INTEGER NOT NULL,
    answers     INTEGER REFERENCES message(seq),
    text        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN
                    ('ready', 'sending', 'sent', 'deferred', 'uncertain', 'failed', 'expired')),
    way         TEXT CHECK (way IN ('keyed', 'resend', 'edit', 'hold')),  -- decided by the first claim
    placeholder TEXT,                            -- the platform's id that an edit will fill
    code        TEXT,                            -- of a held part: what /resend and /drop name
    attempts    INTEGER NOT NULL DEFAULT 0,
    not_before  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    lives_from  INTEGER NOT NULL,                -- its lifetime counts from here: creation, or a person's /resend
    sent_at     INTEGER,
    receipt     TEXT,
    error       TEXT,
    uncertain   INTEGER NOT NULL DEFAULT 0,      -- copies that may stand on the platform beside the one receipt
    strays      INTEGER NOT NULL DEFAULT 0,      -- placeholders that may stand there beside the claimed one
    UNIQUE (turn, key, part)
) STRICT;

INSERT INTO outbox_2(id, ours, chat, voice, turn, key, part, answers, text, state, way, attempts, not_before,
                     created_at, lives_from, sent_at, receipt, error, uncertain)
SELECT id,
       'v1-' || id || '-' || created_at,
       chat, voice, turn, key, part, answers, text,
       CASE WHEN state = 'ready' AND uncertain > 0 THEN 'uncertain'
            WHEN state = 'ready' AND attempts > 0 THEN 'deferred'
            ELSE state END,
       CASE WHEN attempts = 0 THEN NULL WHEN chat LIKE 'terminal:%' THEN 'keyed' ELSE 'resend' END,
       attempts, not_before, created_at, created_at, sent_at, receipt, error, uncertain
FROM outbox;

-- No id is given twice, also after the newest rows went.
DELETE FROM sqlite_sequence WHERE name = 'outbox_2';
INSERT INTO sqlite_sequence SELECT 'outbox_2', seq FROM sqlite_sequence WHERE name = 'outbox';

DROP TABLE outbox;
ALTER TABLE outbox_2 RENAME TO outbox;

-- What belongs to no turn is unique too: SQLite holds two absent turns for different.
CREATE UNIQUE INDEX outbox_turnless ON outbox(chat, key, part) WHERE turn IS NULL;
CREATE INDEX outbox_due ON outbox(chat, id) WHERE state IN ('ready', 'sending', 'deferred', 'uncertain');
CREATE UNIQUE INDEX outbox_held ON outbox(code) WHERE code IS NOT NULL;

CREATE TABLE unreachable (                       -- chats that the platform says will take nothing more
    chat        TEXT PRIMARY KEY,
    why         TEXT NOT NULL,
    since       INTEGER NOT NULL
) STRICT;
