-- Which deliveries a deactivation cancels is told by the registry's version and not by the time: the clock may be set
-- back between the two. And a subscription says why Herald deactivated it.

-- The registry's version when the delivery was matched, or last retried by hand; 0 of what was opened before this
-- migration, where the time tells.
ALTER TABLE deliveries_open ADD COLUMN opened_version INTEGER NOT NULL DEFAULT 0;

-- The version that open_from, or opened_before, had made.
ALTER TABLE subscriptions ADD COLUMN open_from_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN opened_before_version INTEGER NOT NULL DEFAULT 0;

-- When and why Herald itself deactivated it; null while it is active.
ALTER TABLE subscriptions ADD COLUMN deactivated_at INTEGER;
ALTER TABLE subscriptions ADD COLUMN deactivation_reason TEXT;
