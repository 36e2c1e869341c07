-- Schema 3: questions that wait for a person.

CREATE TABLE question (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    code        TEXT NOT NULL,                   -- what people type to answer it
    turn        INTEGER NOT NULL REFERENCES turn(id),
    request     TEXT NOT NULL,                   -- the letter's id
    chat        TEXT NOT NULL,
    text        TEXT NOT NULL,
    choices     TEXT NOT NULL,                   -- JSON
    state       TEXT NOT NULL CHECK (state IN ('open', 'answered', 'expired', 'pending', 'late', 'over')),
    asked_at    INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    UNIQUE (turn, request)
) STRICT;
-- A code is free again when nobody can answer by it any more.
CREATE UNIQUE INDEX question_code ON question(code) WHERE state IN ('open', 'pending');
CREATE INDEX question_open ON question(turn) WHERE state = 'open';
