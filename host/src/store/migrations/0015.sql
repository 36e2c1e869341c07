-- Schema 15: names of people, so that nobody takes another's.

CREATE TABLE name (                              -- how a name looks, and who had it first in a group
    look   TEXT NOT NULL,                        -- its letters and digits, look-alikes folded
    grp    TEXT NOT NULL REFERENCES grp(name),
    sender TEXT NOT NULL,                        -- an owner takes it from whoever had it
    owner  INTEGER NOT NULL,
    PRIMARY KEY (look, grp)
) STRICT, WITHOUT ROWID;
