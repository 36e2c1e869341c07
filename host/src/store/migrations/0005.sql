-- Schema 5: files that agents send. A part of the outbox may be a file of the spool; its text is the caption.

ALTER TABLE outbox ADD COLUMN file TEXT;         -- SHA-256, the file's name in the spool
ALTER TABLE outbox ADD COLUMN file_name TEXT;    -- what it is called in the chat: a label
ALTER TABLE outbox ADD COLUMN file_bytes INTEGER;
CREATE INDEX outbox_file ON outbox(turn, file) WHERE file IS NOT NULL;
