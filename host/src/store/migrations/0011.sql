-- Schema 11: texts with choices, which people press as buttons, and chats that the owner has refused.

ALTER TABLE outbox ADD COLUMN choices TEXT;      -- JSON: labels and commands, below the last part of a text
ALTER TABLE outbox ADD COLUMN chosen INTEGER REFERENCES message(seq);  -- the press that decided

ALTER TABLE stranger ADD COLUMN refused_at INTEGER;
