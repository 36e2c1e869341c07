-- Schema 12: scheduled tasks and their fires.

CREATE TABLE task (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    grp         TEXT NOT NULL REFERENCES grp(name),
    name        TEXT NOT NULL,
    chat        TEXT NOT NULL REFERENCES chat(id),
    remind      INTEGER NOT NULL,                -- 1: the host posts the prompt itself
    prompt      TEXT NOT NULL,
    schedule    TEXT NOT NULL,                   -- canonical: cron 30 7 * * *
    zone        TEXT NOT NULL,
    isolated    INTEGER NOT NULL,
    gate        TEXT,
    silent      INTEGER NOT NULL,
    model       TEXT,
    model_calls INTEGER,
    catch_up    INTEGER NOT NULL,                -- milliseconds; 0: a late fire is missed
    overlap     TEXT NOT NULL CHECK (overlap IN ('skip', 'queue')),
    ends_at     INTEGER,
    fires_left  INTEGER,
    made_by     TEXT NOT NULL,
    depth       INTEGER NOT NULL,
    made_in     TEXT UNIQUE,                     -- turn and id of the request that made it, which may be repeated
    state       TEXT NOT NULL CHECK (state IN ('active', 'paused', 'done', 'cancelled')),
    planned_to  INTEGER NOT NULL,                -- every planned time up to this one has a fire
    next_at     INTEGER,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX task_name ON task(grp, name) WHERE state IN ('active', 'paused') AND remind = 0;
CREATE INDEX task_living ON task(grp, name) WHERE state IN ('active', 'paused');
CREATE INDEX task_ended ON task(grp, id) WHERE state IN ('done', 'cancelled');
CREATE INDEX task_named ON task(grp, name);
CREATE INDEX task_next ON task(next_at) WHERE state = 'active';
CREATE INDEX task_from_file ON task(id) WHERE made_by = 'group.toml' AND state IN ('active', 'paused');
CREATE INDEX task_planned ON task(planned_to) WHERE state = 'active';

CREATE TABLE fire (                              -- one planned execution of a task
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    task        INTEGER NOT NULL REFERENCES task(id),
    planned     INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('later', 'due', 'open', 'ended')),
    late        INTEGER NOT NULL,                -- 1: the host was away at the planned time
    not_before  INTEGER NOT NULL,
    turn        INTEGER REFERENCES turn(id),
    run         TEXT,                            -- the run that got it last
    outcome     TEXT CHECK (outcome IN ('ran', 'caught_up', 'gated', 'failed', 'skipped', 'missed')),
    why         TEXT,
    said        TEXT,                            -- the answer, if the task is silent
    started_at  INTEGER,
    ended_at    INTEGER,
    UNIQUE (task, planned)
) STRICT;
CREATE INDEX fire_waits ON fire(not_before) WHERE state IN ('later', 'due');
CREATE INDEX fire_unfinished ON fire(task) WHERE state <> 'ended';
CREATE INDEX fire_ended ON fire(ended_at) WHERE state = 'ended';

ALTER TABLE turn ADD COLUMN fire INTEGER;                            -- its cause, if no message is
ALTER TABLE turn ADD COLUMN opened_after INTEGER NOT NULL DEFAULT 0;  -- the newest message when a fire opened it
ALTER TABLE run ADD COLUMN runner TEXT NOT NULL DEFAULT '';         -- the digest of the box's agent-runner
