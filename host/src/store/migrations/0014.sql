-- Schema 14: the runs of a session tell its name, because a new name ends in letters that cannot be computed.

CREATE INDEX run_session ON run(lane, session);
