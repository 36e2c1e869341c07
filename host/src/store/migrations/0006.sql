-- Schema 6: which image a group's boxes are made of, by id, and what was seen in it.

CREATE TABLE image (                             -- images that passed the check, by the runner that looked
    id          TEXT NOT NULL,                   -- the engine's: sha256:…
    runner      TEXT NOT NULL,                   -- its digest
    checked_at  INTEGER NOT NULL,
    offers      TEXT NOT NULL,                   -- JSON: what the runner found in it
    PRIMARY KEY (id, runner)
) STRICT;

CREATE TABLE pin (
    grp             TEXT PRIMARY KEY REFERENCES grp(name),
    name            TEXT NOT NULL,               -- as the settings name it
    image           TEXT NOT NULL,               -- what every run uses
    pinned_at       INTEGER NOT NULL,
    before_name     TEXT,                        -- what a rollback goes back to
    before_image    TEXT,
    passed_over     TEXT,                        -- an image that was rolled back from, and is not taken by itself
    refused_name    TEXT,                        -- what was named later and not taken, and why
    refused_image   TEXT,
    refused_why     TEXT,
    refused_at      INTEGER
) STRICT;
