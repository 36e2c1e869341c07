-- Schema 7: what a group's boxes lack of the posture, as the last probe found it.

CREATE TABLE loss (
    grp         TEXT NOT NULL REFERENCES grp(name),
    name        TEXT NOT NULL,                   -- the line of the posture
    why         TEXT NOT NULL CHECK (why IN ('accepted', 'runtime', 'named')),
    expected    TEXT NOT NULL,
    seen        TEXT NOT NULL,
    fix         TEXT NOT NULL,
    found_at    INTEGER NOT NULL,
    PRIMARY KEY (grp, name)
) STRICT;
