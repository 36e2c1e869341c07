-- Years of history for tests and benchmarks. `temp.size` says how much (n messages), in whose group and chat, and what
-- time it is now. Half of the messages are talk in another group's room that nobody answers, an eighth is such talk in
-- the chat itself; the rest has its outcome.

INSERT INTO grp VALUES ('club', 70900, 1, 1);
INSERT INTO chat(id, grp, kind, title, admitted_at, admitted_by) VALUES ('telegram:-900', 'club', 'room', 'Club', 1, 'test');

CREATE TEMP TABLE past AS
    SELECT i, grp, chat, grp || '/conversation' AS lane, now - (n - i) * 60000 AS at,
           (SELECT coalesce(max(seq), 0) FROM message) + i AS seq,
           (SELECT coalesce(max(id), 0) FROM turn) + i AS turn,
           printf('00000000-0000-7000-8000-%012d', i) AS run
    FROM size, (WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r, size WHERE i < n) SELECT i FROM r);
CREATE TEMP TABLE done AS SELECT * FROM past WHERE i % 4 = 0;

INSERT INTO turn(id, grp, lane, chat, state, opened_at, closed_at, why)
    SELECT turn, grp, lane, chat, iif(i % 400 = 0, 'failed', 'done'), at, at + 9000, 'finished' FROM done;
INSERT INTO turn(grp, lane, chat, state, opened_at, closed_at, why)
    SELECT 'club', 'club/conversation', 'telegram:-900', 'done', at, at + 9000, 'finished' FROM done WHERE i % 16 = 0;
INSERT INTO message(seq, chat, message_id, version, role, state, turn, sender, sender_name, owner, text, attachments,
                    sent_at, stored_at)
    SELECT seq, iif(i % 2 = 1, 'telegram:-900', chat), 'past-' || i, 0,
           CASE WHEN i % 4 = 0 THEN 'wake' WHEN i % 16 = 2 THEN 'command' ELSE 'context' END,
           iif(i % 2 = 1 OR i % 8 = 6, 'waiting', 'done'), iif(i % 4 = 0, turn, NULL),
           'telegram:5', 'Ann', 0, 'What was said at that time, number ' || i, '[]', at, at
    FROM past;
INSERT INTO run(id, grp, lane, state, session, image, created_at, ready_at, ended_at, ending, to_n, from_n, ack)
    SELECT run, iif(i % 16 = 0, 'club', grp), iif(i % 16 = 0, 'club/conversation', lane), 'ended', 'conversation-1', 'i',
           at, at + 1, at + 9000, iif(i % 160 = 0, 'never_started', 'finished'), 2, 3, 2
    FROM done WHERE i % 8 = 0;
INSERT INTO to_agent SELECT run, k.column1, turn, 'input', x'7b7d', at FROM done, (VALUES (1), (2)) k WHERE i % 8 = 0;
INSERT INTO given SELECT run, seq, 2 FROM done WHERE i % 8 = 0;
INSERT INTO consumed SELECT run, k.column1, 't:' || k.column1, turn, 'x', at
    FROM done, (VALUES (1), (2), (3)) k WHERE i % 8 = 0;
INSERT INTO request SELECT turn, 'r', run, 'remind', '{}', '{"outcome":"ok","result":null}', at FROM done WHERE i % 8 = 0;
INSERT INTO question(code, turn, request, chat, text, choices, state, asked_at, expires_at, ended_at)
    SELECT 'AA', turn, 'q', chat, 'Milk?', '[]', 'answered', at, at + 1, at + 1 FROM done WHERE i % 8 = 0;
INSERT INTO outbox(ours, chat, voice, turn, key, part, answers, text, state, way, attempts, not_before, created_at,
                   lives_from, sent_at, receipt, uncertain)
    SELECT 'past-' || i, chat, 'reply', turn, 'k', 0, seq, 'An answer of that time',
           CASE i % 400 WHEN 0 THEN 'failed' WHEN 200 THEN 'expired' ELSE 'sent' END, 'resend', 1, 0, at, at, at, '1',
           i % 40 = 0
    FROM done;
-- A trigger counts what changes, and these rows came as they are.
UPDATE tally SET n = (SELECT count(*) FROM outbox WHERE 'parts ' || state = what) WHERE what LIKE 'parts %';
UPDATE tally SET n = (SELECT sum(uncertain) FROM outbox) WHERE what = 'copies';
INSERT INTO stage SELECT turn, NULL, NULL, k.column1, at, 0 FROM done, (VALUES ('start'), ('input'), ('end')) k;
INSERT INTO stage SELECT NULL, seq, NULL, 'stored', at, 0 FROM done;
INSERT INTO usage SELECT run, turn, grp, 'p', 'm', 1, 2, 3, 4, 5, 0, 200, 9, at FROM done;
INSERT INTO usage_day
    SELECT grp, date(at / 1000, 'unixepoch'), 'p', 'm', '', '', count(*), 10, 2, 5, 0 FROM done
    WHERE at > (SELECT now FROM size) - 7776000000 GROUP BY 1, 2;
INSERT INTO audit(at, who, what, detail) SELECT at, 'terminal', 'image', '' FROM done WHERE i % 8 = 0;
-- Tasks that live, and one that has fired ever since; reminders that were posted.
INSERT INTO task(grp, name, chat, remind, prompt, schedule, zone, isolated, silent, catch_up, overlap, made_by, depth, state,
                 planned_to, next_at, created_at)
    SELECT grp, 'past task ' || k.column1, chat, 0, 'Do it.', 'cron 30 7 1 1 *', 'UTC', 1, 0, 0, 'skip', 'm-1', 0, 'active',
           now - 60000, now + 31536000000, now FROM size, (VALUES (1), (2), (3)) k;
INSERT INTO fire(task, planned, state, late, not_before, turn, outcome, started_at, ended_at)
    SELECT (SELECT min(id) FROM task WHERE name = 'past task 1'), at, 'ended', 0, at, turn,
           CASE i % 16 WHEN 0 THEN 'missed' WHEN 4 THEN 'gated' ELSE 'ran' END, at, at + 9000 FROM done;
INSERT INTO task(grp, name, chat, remind, prompt, schedule, zone, isolated, silent, catch_up, overlap, made_by, depth, made_in,
                 state, planned_to, created_at)
    SELECT grp, 'stretch', chat, 1, 'Stretch.', 'once 2026-11-01T08:00:00Z', 'UTC', 0, 0, 0, 'skip', 'm-' || seq, 0,
           't-' || turn || ' t-' || turn || ':1.0', 'done', at, at FROM done WHERE i % 8 = 0;
INSERT INTO fire(task, planned, state, late, not_before, outcome, started_at, ended_at)
    SELECT id, planned_to, 'ended', 0, planned_to, 'ran', planned_to, planned_to FROM task WHERE remind = 1;
DROP TABLE past;
DROP TABLE done;
