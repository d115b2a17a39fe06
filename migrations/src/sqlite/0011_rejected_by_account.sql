-- An account lists its own rejected messages, newest first, however many there are of others.
CREATE INDEX IF NOT EXISTS rejected_events_by_account ON rejected_events (account, id);
