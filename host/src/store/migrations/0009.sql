-- Schema 9: channels have accounts, and a state that people can see.

CREATE TABLE position_9 (
    channel     TEXT NOT NULL,
    account     TEXT NOT NULL,                   -- the platform's id of the bot; '': of an earlier release, or none
    value       TEXT NOT NULL,
    at          INTEGER NOT NULL,
    home        INTEGER NOT NULL,                -- 1: the channel's first account, whose messages have bare ids
    PRIMARY KEY (channel, account)
) STRICT;
INSERT INTO position_9 SELECT channel, '', value, at, 1 FROM position;
DROP TABLE position;
ALTER TABLE position_9 RENAME TO position;

ALTER TABLE message ADD COLUMN origin TEXT;      -- whose words it is, if its sender passed it on

ALTER TABLE stranger ADD COLUMN first TEXT;      -- JSON: its first message for the agent, answered after /admit

CREATE TABLE channel_state (                     -- how each channel fares, for people
    channel     TEXT PRIMARY KEY,
    account     TEXT NOT NULL,                   -- its name, such as @laz_bot
    trouble     TEXT,                            -- an error code; absent while the channel reads
    why         TEXT NOT NULL,
    since       INTEGER NOT NULL,
    asks_at     INTEGER
) STRICT;
