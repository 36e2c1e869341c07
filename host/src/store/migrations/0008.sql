-- Schema 8: the cost of a message does not grow with history. Each index holds only the rows that somebody waits for,
-- or leads straight to them.

-- Talk that nobody answers is most of a room: it has an index of its own, apart from what waits for an agent.
DROP INDEX message_waiting;
CREATE INDEX message_wakes ON message(chat) WHERE role = 'wake' AND state = 'waiting';
CREATE INDEX message_context ON message(chat) WHERE role = 'context' AND state = 'waiting';
CREATE INDEX message_command ON message(chat) WHERE role = 'command';
CREATE INDEX message_order ON message(state) WHERE role = 'command' AND state = 'waiting';
CREATE INDEX message_files ON message(state) WHERE state <> 'done' AND instr(attachments, '"file":"') > 0;

CREATE INDEX chat_group ON chat(grp);
CREATE INDEX turn_lane ON turn(lane);
CREATE INDEX run_lane ON run(lane, ended_at);
CREATE INDEX run_not_started ON run(lane, created_at) WHERE ending = 'never_started';
CREATE INDEX given_message ON given(seq);

-- Context up to this message was given to an agent, or left out for good. The rows follow in small steps.
ALTER TABLE chat ADD COLUMN heard INTEGER NOT NULL DEFAULT 0;

-- What `status` counts. Triggers keep it, so that no statement can forget to. A migration that makes one of these
-- tables anew drops its triggers and must make them again.
CREATE TABLE tally (what TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO tally SELECT 'messages', count(*) FROM message;
INSERT INTO tally SELECT 'turns ' || s.column1, (SELECT count(*) FROM turn WHERE state = s.column1)
    FROM (VALUES ('open'), ('done'), ('failed'), ('stopped')) s;
INSERT INTO tally SELECT 'parts ' || s.column1, (SELECT count(*) FROM outbox WHERE state = s.column1)
    FROM (VALUES ('failed'), ('expired')) s;
INSERT INTO tally SELECT 'copies', coalesce(sum(uncertain), 0) FROM outbox;
INSERT INTO tally SELECT 'strays', coalesce(sum(strays), 0) FROM outbox;

CREATE TRIGGER message_tally AFTER INSERT ON message BEGIN
    UPDATE tally SET n = n + 1 WHERE what = 'messages';
END;
CREATE TRIGGER turn_tally AFTER INSERT ON turn BEGIN
    UPDATE tally SET n = n + 1 WHERE what = 'turns ' || new.state;
END;
CREATE TRIGGER turn_state_tally AFTER UPDATE OF state ON turn WHEN old.state <> new.state BEGIN
    UPDATE tally SET n = n - 1 WHERE what = 'turns ' || old.state;
    UPDATE tally SET n = n + 1 WHERE what = 'turns ' || new.state;
END;
CREATE TRIGGER outbox_state_tally AFTER UPDATE OF state ON outbox WHEN old.state <> new.state BEGIN
    UPDATE tally SET n = n - 1 WHERE what = 'parts ' || old.state;
    UPDATE tally SET n = n + 1 WHERE what = 'parts ' || new.state;
END;
CREATE TRIGGER outbox_doubt_tally AFTER UPDATE OF uncertain, strays ON outbox BEGIN
    UPDATE tally SET n = n + new.uncertain - old.uncertain WHERE what = 'copies';
    UPDATE tally SET n = n + new.strays - old.strays WHERE what = 'strays';
END;
