-- Schema 4: how often a message came back from a box that did not acknowledge it.

ALTER TABLE message ADD COLUMN returned INTEGER NOT NULL DEFAULT 0;
