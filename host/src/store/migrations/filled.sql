-- Rows for every table of schema 1: what the migrations after it are tried on. Tests only.

INSERT INTO grp VALUES ('main', 70001, 2, 1), ('family', 70002, 1, 2);
INSERT INTO number VALUES ('uid', 2), ('uncertain', 3);
INSERT INTO chat VALUES ('telegram:5', 'main', 'direct', 'Ann', 1, 'terminal'), ('telegram:-1', 'family', 'room', 'Family', 1, 'terminal');
INSERT INTO owner VALUES ('telegram:5', 1);
INSERT INTO stranger VALUES ('telegram:9', 'ABC234', 'direct', 'Eve', 'telegram:9', 'Eve', 1, 2, 7);
INSERT INTO position VALUES ('telegram', '1001', 5);
INSERT INTO turn VALUES (1, 'main', 'main/conversation', 'telegram:5', 'done', 1, 10, 20, 'finished');
INSERT INTO turn VALUES (2, 'main', 'main/conversation', 'telegram:5', 'failed', 3, 30, 40, 'attempts');
INSERT INTO turn VALUES (3, 'family', 'family/conversation', 'telegram:-1', 'stopped', 1, 30, 40, 'stop');
INSERT INTO turn VALUES (4, 'main', 'main/conversation', 'telegram:5', 'open', 2, 50, NULL, NULL);

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
INSERT INTO message SELECT i, CASE i % 2 WHEN 0 THEN 'telegram:5' ELSE 'telegram:-1' END, i, 0,
    CASE i % 3 WHEN 0 THEN 'context' WHEN 1 THEN 'wake' ELSE 'command' END, CASE WHEN i > 390 THEN 'waiting' ELSE 'done' END,
    CASE WHEN i > 390 THEN NULL ELSE 1 + i % 3 END, 'telegram:5', 'Ann', 1, 'message ' || i, NULL, '[]', i, i, NULL FROM n;
INSERT INTO message VALUES (401, 'telegram:5', '401', 1, 'wake', 'in_turn', 4, 'telegram:5', 'Ann', 1, 'in the open turn',
    '{"message_id":"1","text":"quoted"}', '[]', 50, 50, NULL);

INSERT INTO run VALUES ('019ab000-0000-7000-8000-000000000001', 'main', 'main/conversation', 'ended', 'conversation-1', 'i', 'c1', 10, 11, 20, 'finished', NULL, 2, 3, 2);
INSERT INTO run VALUES ('019ab000-0000-7000-8000-000000000002', 'main', 'main/conversation', 'live', 'conversation-2', 'i', 'c2', 50, 51, NULL, NULL, NULL, 2, 1, 1);
INSERT INTO run VALUES ('019ab000-0000-7000-8000-000000000003', 'family', 'family/conversation', 'ended', 'conversation-1', '', NULL, 30, NULL, 40, 'never_started', 'no image', 0, 0, 0);
INSERT INTO to_agent SELECT id, 1, NULL, 'begin', zeroblob(900), 10 FROM run;
INSERT INTO to_agent VALUES ('019ab000-0000-7000-8000-000000000002', 2, 4, 'input', x'7b7d', 51);
INSERT INTO given VALUES ('019ab000-0000-7000-8000-000000000002', 401, 2);
INSERT INTO consumed VALUES ('019ab000-0000-7000-8000-000000000002', 1, 'ready', NULL, 'ab', 51), ('019ab000-0000-7000-8000-000000000001', 3, 't-1:3.0', 1, 'cd', 12);
INSERT INTO request VALUES (4, 't-4:1.0', '019ab000-0000-7000-8000-000000000002', 'update_personality', '{}', NULL, 52), (1, 't-1:1.0', '019ab000-0000-7000-8000-000000000001', 'remind', '{}', '{"ok":true}', 12);

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
INSERT INTO outbox SELECT i, 'telegram:5', 'reply', 1 + i % 3, 'k' || i, 0, i, 'reply ' || i, 'sent', 1, 0, i, i, 'r' || i, NULL, 0 FROM n;
INSERT INTO outbox VALUES
    (201, 'telegram:5', 'reply', 4, 'k', 0, 401, 'ready', 'ready', 0, 0, 60, NULL, NULL, NULL, 0),
    (202, 'telegram:5', 'reply', 4, 'k', 1, 401, 'sending', 'sending', 1, 0, 60, NULL, NULL, NULL, 1),
    (203, 'telegram:-1', 'notice', NULL, 'notice:x', 0, NULL, 'failed', 'failed', 9, 0, 60, NULL, NULL, 'gone', 0),
    (204, 'telegram:-1', 'notice', NULL, 'notice:y', 0, NULL, 'expired', 'expired', 9, 0, 60, NULL, NULL, NULL, 0);

INSERT INTO stage SELECT turn, seq, NULL, 'stored', stored_at, stored_at * 1000 FROM message;
INSERT INTO usage VALUES ('019ab000-0000-7000-8000-000000000001', 1, 'main', 'p', 'm', 1, 2, 3, 4, NULL, 0, 200, 9, 12);
INSERT INTO audit VALUES (1, 1, 'terminal', 'owner', 'telegram:5');
