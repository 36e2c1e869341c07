-- Schema 1. README.md beside the store's code explains each table. Times are milliseconds since 1970, UTC.

CREATE TABLE grp (
    name        TEXT PRIMARY KEY,
    uid         INTEGER NOT NULL UNIQUE,        -- the box's user; never used again, even if the group goes
    session     INTEGER NOT NULL DEFAULT 1,     -- /new counts it up
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE number (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;  -- counters, and the next uid

CREATE TABLE chat (
    id          TEXT PRIMARY KEY,               -- telegram:-100123/42
    grp         TEXT NOT NULL REFERENCES grp(name),
    kind        TEXT NOT NULL CHECK (kind IN ('direct', 'room')),
    title       TEXT NOT NULL,
    admitted_at INTEGER NOT NULL,
    admitted_by TEXT NOT NULL
) STRICT;

CREATE TABLE owner (sender TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT;

CREATE TABLE stranger (                          -- chats that wrote without being admitted: counted, never kept
    chat        TEXT PRIMARY KEY,
    code        TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    title       TEXT NOT NULL,
    sender      TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    first_at    INTEGER NOT NULL,
    last_at     INTEGER NOT NULL,
    messages    INTEGER NOT NULL
) STRICT;

CREATE TABLE position (channel TEXT PRIMARY KEY, value TEXT NOT NULL, at INTEGER NOT NULL) STRICT;

CREATE TABLE turn (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    grp         TEXT NOT NULL REFERENCES grp(name),
    lane        TEXT NOT NULL,
    chat        TEXT NOT NULL REFERENCES chat(id),
    state       TEXT NOT NULL CHECK (state IN ('open', 'done', 'failed', 'stopped')),
    attempt     INTEGER NOT NULL DEFAULT 1,
    opened_at   INTEGER NOT NULL,
    closed_at   INTEGER,
    why         TEXT                             -- how it ended: finished, limit, time, stop, attempts, …
) STRICT;
CREATE UNIQUE INDEX turn_open ON turn(lane) WHERE state = 'open';

CREATE TABLE message (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    chat        TEXT NOT NULL REFERENCES chat(id),
    message_id  TEXT NOT NULL,
    version     INTEGER NOT NULL,
    role        TEXT NOT NULL CHECK (role IN ('wake', 'context', 'command')),
    state       TEXT NOT NULL CHECK (state IN ('waiting', 'in_turn', 'done')),
    turn        INTEGER REFERENCES turn(id),     -- the turn that takes (or took) it
    sender      TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    owner       INTEGER NOT NULL,
    text        TEXT NOT NULL,
    reply_to    TEXT,                            -- JSON
    attachments TEXT NOT NULL,                   -- JSON
    sent_at     INTEGER NOT NULL,
    stored_at   INTEGER NOT NULL,
    outcome     TEXT,                            -- of a command
    UNIQUE (chat, message_id, version)
) STRICT;
CREATE INDEX message_turn ON message(turn) WHERE turn IS NOT NULL;
CREATE INDEX message_waiting ON message(chat, seq) WHERE state = 'waiting';

CREATE TABLE run (
    id          TEXT PRIMARY KEY,
    grp         TEXT NOT NULL REFERENCES grp(name),
    lane        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('starting', 'live', 'ended')),
    session     TEXT NOT NULL,
    image       TEXT NOT NULL,
    container   TEXT,
    created_at  INTEGER NOT NULL,
    ready_at    INTEGER,
    ended_at    INTEGER,
    ending      TEXT,
    why         TEXT,
    to_n        INTEGER NOT NULL DEFAULT 0,      -- the highest number written to the agent
    from_n      INTEGER NOT NULL DEFAULT 0,      -- the highest number taken from the agent
    ack         INTEGER NOT NULL DEFAULT 0       -- the agent's last acknowledgement
) STRICT;
CREATE UNIQUE INDEX run_live ON run(lane) WHERE state <> 'ended';

CREATE TABLE to_agent (                          -- every letter to an agent is a row before it is a file
    run         TEXT NOT NULL REFERENCES run(id),
    n           INTEGER NOT NULL,
    turn        INTEGER,
    kind        TEXT NOT NULL,
    bytes       BLOB NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE given (                             -- which messages a letter carried
    run         TEXT NOT NULL,
    seq         INTEGER NOT NULL REFERENCES message(seq),
    n           INTEGER NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE consumed (                          -- letters of agents that were taken
    run         TEXT NOT NULL REFERENCES run(id),
    n           INTEGER NOT NULL,
    id          TEXT NOT NULL,
    turn        INTEGER,
    sha256      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX consumed_turn ON consumed(turn, id) WHERE turn IS NOT NULL;

CREATE TABLE request (
    turn        INTEGER NOT NULL REFERENCES turn(id),
    id          TEXT NOT NULL,
    run         TEXT NOT NULL REFERENCES run(id),
    kind        TEXT NOT NULL,
    body        TEXT NOT NULL,                   -- JSON
    verdict     TEXT,                            -- JSON; absent while open
    at          INTEGER NOT NULL,
    PRIMARY KEY (turn, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    chat        TEXT NOT NULL,
    voice       TEXT NOT NULL CHECK (voice IN ('reply', 'notice')),
    turn        INTEGER REFERENCES turn(id),
    key         TEXT NOT NULL,                   -- the letter's id, or notice:<word>
    part        INTEGER NOT NULL,
    answers     INTEGER REFERENCES message(seq),
    text        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('ready', 'sending', 'sent', 'failed', 'expired')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    not_before  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    sent_at     INTEGER,
    receipt     TEXT,
    error       TEXT,
    uncertain   INTEGER NOT NULL DEFAULT 0,      -- how often a crash fell between send and receipt
    UNIQUE (turn, key, part)
) STRICT;
-- What belongs to no turn is unique too: SQLite holds two absent turns for different.
CREATE UNIQUE INDEX outbox_turnless ON outbox(chat, key, part) WHERE turn IS NULL;
CREATE INDEX outbox_due ON outbox(chat, id) WHERE state IN ('ready', 'sending');

CREATE TABLE stage (                             -- the way of a message, step by step
    turn        INTEGER,
    seq         INTEGER,
    run         TEXT,
    name        TEXT NOT NULL,
    wall        INTEGER NOT NULL,
    mono_us     INTEGER NOT NULL
) STRICT;
CREATE INDEX stage_turn ON stage(turn);
CREATE INDEX stage_seq ON stage(seq);

CREATE TABLE usage (
    run         TEXT NOT NULL,
    turn        INTEGER,
    grp         TEXT NOT NULL,
    provider    TEXT NOT NULL,
    model       TEXT NOT NULL,
    input       INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    cache_read  INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    micros      INTEGER,                         -- millionths of a dollar; absent for an unpriced model
    estimated   INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    took_ms     INTEGER NOT NULL,
    at          INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_turn ON usage(turn);

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    who         TEXT NOT NULL,
    what        TEXT NOT NULL,
    detail      TEXT NOT NULL
) STRICT;
