-- Schema 10: a reply is rendered before it is split, so that each part has what it needs.

ALTER TABLE outbox ADD COLUMN markup TEXT;       -- what is left to send; absent: text is Markdown that its channel renders
