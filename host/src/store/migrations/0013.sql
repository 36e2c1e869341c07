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
