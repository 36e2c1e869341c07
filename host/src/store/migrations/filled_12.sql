-- Rows for the tables of schema 12, beside `filled.sql`: 50 tasks of every kind with their fires. Tests only.

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
INSERT INTO task(id, grp, name, chat, remind, prompt, schedule, zone, isolated, gate, silent, model, model_calls, catch_up,
                 overlap, ends_at, fires_left, made_by, depth, made_in, state, planned_to, next_at, created_at)
SELECT i, iif(i % 2, 'main', 'family'), iif(i % 5, 'task ' || i, 'stretch'), iif(i % 2, 'telegram:5', 'telegram:-1'),
       i % 5 = 0, 'Do it.', iif(i % 3, 'cron 30 7 * * *', 'once 2026-12-24T08:00:00Z'), 'Europe/Berlin', i % 5 > 0 AND i % 4 > 1,
       iif(i % 10 = 1, 'echo {"wake": true}', NULL), i % 10 = 2, iif(i % 10 = 3, 'm', NULL), iif(i % 10 = 4, 3, NULL),
       43200000, iif(i % 7, 'skip', 'queue'), iif(i % 11 = 0, 99, NULL), iif(i % 13 = 0, 5, NULL),
       CASE i % 3 WHEN 0 THEN 'm-' || i WHEN 1 THEN 'terminal' ELSE 'f-1' END, i % 3 = 2, iif(i % 3 = 0, 't-1 t-1:' || i, NULL),
       CASE WHEN i <= 40 THEN 'active' WHEN i <= 45 THEN 'paused' WHEN i <= 48 THEN 'done' ELSE 'cancelled' END,
       100, iif(i <= 40, 200, NULL), i FROM n;

INSERT INTO fire(task, planned, state, late, not_before, outcome, why, started_at, ended_at)
SELECT t.id, k.column1, 'ended', k.column1 = 20, k.column1, k.column2, k.column3, k.column1, k.column1 + 5
FROM task t, (VALUES (10, 'ran', NULL), (20, 'caught_up', NULL), (30, 'gated', NULL), (40, 'failed', 'gate.exit'),
              (50, 'skipped', 'overlap'), (60, 'missed', NULL)) k;
INSERT INTO fire(task, planned, state, late, not_before) SELECT id, 100, iif(id % 2, 'due', 'later'), 1, 100 + id FROM task
    WHERE id BETWEEN 2 AND 40;
INSERT INTO turn(id, grp, lane, chat, state, opened_at, fire, opened_after)
    VALUES (5, 'family', 'family/task-2', 'telegram:-1', 'open', 60, 1000, 401);
INSERT INTO fire(id, task, planned, state, late, not_before, turn, run, said, started_at)
    VALUES (1000, 2, 90, 'open', 0, 90, 5, '019ab000-0000-7000-8000-000000000002', 'so far', 90);
