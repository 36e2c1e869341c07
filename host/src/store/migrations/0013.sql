-- Schema 13: what people decide in a chat and keeps for their group.

CREATE TABLE tool_rule (                         -- "always allow this", answered to an agent's question
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    grp      TEXT NOT NULL REFERENCES grp(name),
    tool     TEXT NOT NULL,
    command  TEXT,                               -- for run_command: exactly this command
    made_by  TEXT NOT NULL,                      -- the owner who said so
    made_at  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX tool_rule_once ON tool_rule(grp, tool, coalesce(command, ''));

ALTER TABLE question ADD COLUMN permission TEXT; -- JSON: what it asks an owner to allow, if it asks for that

CREATE TABLE model_choice (                      -- a group's model that /model has set in place of its file's
    grp      TEXT PRIMARY KEY REFERENCES grp(name),
    provider TEXT NOT NULL,
    model    TEXT NOT NULL,
    made_by  TEXT NOT NULL,
    made_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE taken_mark (                        -- a reaction that shows that a message was taken, until its turn ends
    chat     TEXT NOT NULL,
    message  TEXT NOT NULL,                      -- the platform's id
    turn     INTEGER NOT NULL REFERENCES turn(id),
    state    TEXT NOT NULL CHECK (state IN ('wanted', 'shown')),
    PRIMARY KEY (chat, message)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_day (                         -- what a group's model calls used in a day of its zone
    grp         TEXT NOT NULL,
    day         TEXT NOT NULL,                   -- 2026-11-30
    provider    TEXT NOT NULL,
    model       TEXT NOT NULL,
    sender      TEXT NOT NULL,                   -- who wrote the turn's newest message; '': a task
    sender_name TEXT NOT NULL,
    calls       INTEGER NOT NULL,
    input       INTEGER NOT NULL,                -- with what the provider's cache read and wrote
    output      INTEGER NOT NULL,
    micros      INTEGER NOT NULL,                -- of the calls that have a price
    unpriced    INTEGER NOT NULL,                -- calls without one
    PRIMARY KEY (grp, day, provider, model, sender)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_day_day ON usage_day(day);
INSERT INTO usage_day
    SELECT grp, day, provider, model, coalesce(m.sender, ''), coalesce(m.sender_name, ''), count(*), sum(tokens),
           sum(output), coalesce(sum(micros), 0), sum(micros IS NULL)
    FROM (SELECT *, date(at / 1000, 'unixepoch') AS day, input + cache_read + cache_write AS tokens,
                 (SELECT max(seq) FROM message WHERE turn = usage.turn AND role = 'wake') AS asked FROM usage) u
    LEFT JOIN message m ON m.seq = u.asked GROUP BY 1, 2, 3, 4, 5;
