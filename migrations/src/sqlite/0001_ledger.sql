-- The ledger on SQLite.
--
-- Identifiers are 16-byte blobs. Times are microseconds since 1970 (UTC). An event's uid is a UUIDv7
-- and a delivery's id begins with it, so both grow with time: new rows go to the end of their tree,
-- and a primary key is its own "newest first".

-- What was accepted, as it was accepted.
CREATE TABLE events (
    uid           BLOB    NOT NULL PRIMARY KEY,
    account       TEXT    NOT NULL,
    id            BLOB    NOT NULL,
    type          INTEGER NOT NULL CHECK (type BETWEEN 1 AND 5),
    occurred_at   INTEGER,
    accepted_at   INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,
    objects       TEXT    NOT NULL,
    data          TEXT    NOT NULL,
    traceparent   TEXT,
    -- How many subscriptions it matched, of those up to the cursor: in every snapshot the number of
    -- its rows in deliveries_open and deliveries_closed together.
    matched_count INTEGER NOT NULL CHECK (matched_count >= 0),
    -- The last subscription whose delivery is recorded; null once all are.
    cursor        BLOB
) STRICT;
CREATE INDEX events_by_id ON events (id);
CREATE INDEX events_incomplete ON events (uid) WHERE cursor IS NOT NULL;

-- What makes a repeated publication the same event. Apart from events, because its window (7 days)
-- is not theirs.
CREATE TABLE event_keys (
    id          BLOB    NOT NULL,
    account     TEXT    NOT NULL,
    uid         BLOB    NOT NULL,
    recorded_at INTEGER NOT NULL,
    body_hash   INTEGER NOT NULL,
    PRIMARY KEY (id, account)
) STRICT, WITHOUT ROWID;

-- The delivery queue: small and hot.
CREATE TABLE deliveries_open (
    id               BLOB    NOT NULL PRIMARY KEY,
    event            BLOB    NOT NULL,
    subscription     BLOB    NOT NULL,
    shard            INTEGER NOT NULL CHECK (shard BETWEEN 0 AND 255),
    webhook          INTEGER NOT NULL CHECK (webhook BETWEEN 1 AND 6),
    attempts         INTEGER NOT NULL CHECK (attempts >= 0),
    due_at           INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    opened_at        INTEGER NOT NULL,
    -- A former owner may still have it in flight until then.
    busy_until       INTEGER NOT NULL DEFAULT 0,
    last_status_code INTEGER,
    last_error       TEXT
) STRICT, WITHOUT ROWID;
-- The order in which a lane reads, and what a takeover skips through.
CREATE INDEX deliveries_open_by_lane ON deliveries_open (shard, subscription, due_at);

-- What is over: appended, and moved back only by a manual retry. Its last attempt is inline, so a
-- delivery that succeeds at once is one row.
CREATE TABLE deliveries_closed (
    id                  BLOB    NOT NULL PRIMARY KEY,
    event               BLOB    NOT NULL,
    subscription        BLOB    NOT NULL,
    webhook             INTEGER NOT NULL CHECK (webhook BETWEEN 1 AND 6),
    -- 1 Delivered, 2 Dead, 3 Cancelled, 4 Refused
    status              INTEGER NOT NULL CHECK (status BETWEEN 1 AND 4),
    reason              TEXT,
    attempts            INTEGER NOT NULL CHECK (attempts >= 0),
    created_at          INTEGER NOT NULL,
    closed_at           INTEGER NOT NULL,
    last_status_code    INTEGER,
    last_error          TEXT,
    attempt_at          INTEGER,
    attempt_duration_us INTEGER,
    attempt_detail      TEXT,
    CHECK ((status = 1) = (reason IS NULL)),
    CHECK (status <> 1 OR last_status_code BETWEEN 200 AND 299)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_closed_by_subscription ON deliveries_closed (subscription, id);
CREATE INDEX deliveries_closed_without_success ON deliveries_closed (status, id) WHERE status <> 1;

-- Every attempt that is not inline: what failed before the last, and what came late.
CREATE TABLE attempts (
    delivery    BLOB    NOT NULL,
    number      INTEGER NOT NULL CHECK (number >= 1),
    at          INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    status_code INTEGER,
    error       TEXT,
    detail      TEXT,
    next_due_at INTEGER,
    PRIMARY KEY (delivery, number, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    id         BLOB    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    active     INTEGER NOT NULL CHECK (active IN (0, 1)),
    -- 1 Producer, 2 ProcessBuilder, 4 Operator, added up
    roles      INTEGER NOT NULL CHECK (roles BETWEEN 0 AND 7),
    created_at INTEGER NOT NULL,
    -- The registry's version at the last change, of keys and grants as well.
    version    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX accounts_by_version ON accounts (version);

CREATE TABLE api_keys (
    id         BLOB    NOT NULL PRIMARY KEY,
    account    BLOB    NOT NULL REFERENCES accounts (id),
    name       TEXT,
    -- SHA-256 of the key; a key has 256 random bits, so nothing slower is needed.
    hash       BLOB    NOT NULL UNIQUE,
    roles      INTEGER NOT NULL CHECK (roles BETWEEN 0 AND 7),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_by_account ON api_keys (account);

CREATE TABLE grants (
    account     BLOB    NOT NULL REFERENCES accounts (id),
    object_type INTEGER NOT NULL,
    -- All zeros: every object of the type.
    object      BLOB    NOT NULL,
    PRIMARY KEY (account, object_type, object)
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (
    id                  BLOB    NOT NULL PRIMARY KEY,
    owner               BLOB    NOT NULL,
    webhook             INTEGER NOT NULL CHECK (webhook BETWEEN 1 AND 6),
    object_type         INTEGER NOT NULL,
    object              BLOB,
    url                 TEXT    NOT NULL,
    custom_header       TEXT,
    custom_header_value TEXT,
    name                TEXT,
    active              INTEGER NOT NULL CHECK (active IN (0, 1)),
    signing_key         BLOB    NOT NULL,
    timeout_ms          INTEGER NOT NULL,
    retry_initial_ms    INTEGER NOT NULL,
    retry_multiplier    REAL    NOT NULL,
    retry_max_ms        INTEGER NOT NULL,
    retry_give_up_ms    INTEGER NOT NULL,
    retry_max_attempts  INTEGER,
    max_in_flight       INTEGER NOT NULL,
    rate_limit          REAL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    -- Deliveries opened before this are cancelled: when it was last deactivated or deleted.
    open_from           INTEGER NOT NULL,
    -- Deleted ones stay, so that their deliveries can still be explained.
    deleted             INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    version             INTEGER NOT NULL,
    CHECK ((custom_header IS NULL) = (custom_header_value IS NULL)),
    CHECK (deleted = 0 OR active = 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX subscriptions_by_version ON subscriptions (version);
CREATE INDEX subscriptions_by_owner ON subscriptions (owner, id);

-- Grows with every change of subscriptions, accounts, keys and grants, in the same transaction.
CREATE TABLE registry_version (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO registry_version VALUES (1, 0);

-- Who sends the deliveries of a shard of the subscriptions, and until when.
CREATE TABLE shards (
    shard       INTEGER NOT NULL PRIMARY KEY CHECK (shard BETWEEN 0 AND 255),
    owner       BLOB,
    epoch       INTEGER NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT;
WITH RECURSIVE n (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM n WHERE shard < 255)
INSERT INTO shards SELECT shard, NULL, 0, 0 FROM n;

-- Lanes to look at: written with the change that makes them due, taken by the shard's owner.
CREATE TABLE wakeups (
    shard        INTEGER NOT NULL,
    subscription BLOB    NOT NULL,
    due_at       INTEGER NOT NULL,
    PRIMARY KEY (shard, subscription)
) STRICT, WITHOUT ROWID;

-- What must follow from a change, written with it.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT    NOT NULL CHECK (kind IN ('cancel_deliveries')),
    subscription BLOB    NOT NULL,
    -- Deliveries opened before this.
    opened_before INTEGER NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;

-- Messages that are no events, whole and with the reason.
CREATE TABLE rejected_events (
    id          BLOB    NOT NULL PRIMARY KEY,
    account     TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    faults      TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    body_bytes  INTEGER NOT NULL
) STRICT;

-- Who changed what.
CREATE TABLE audit_log (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    account BLOB,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL
) STRICT;

-- The embedded event queue. AUTOINCREMENT: a number is never used again, so acknowledging up to one
-- cannot touch a later message.
CREATE TABLE queue_messages (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    account     TEXT    NOT NULL,
    accepted_at INTEGER NOT NULL,
    traceparent TEXT,
    events      INTEGER NOT NULL CHECK (events >= 1),
    body        BLOB    NOT NULL
) STRICT;
