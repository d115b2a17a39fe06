-- The ledger on PostgreSQL: the tables of sqlite/0001_ledger.sql and 0002_workers.sql, where each column is
-- explained, with what several processes and much data need besides.
--
-- Times are microseconds since 1970 (UTC) by the database's own clock. An event's uid is a UUIDv7 and a
-- delivery's id begins with it, so primary keys grow with time, are their own "newest first", and say in
-- which day's partition a row is.

CREATE TABLE events (
    uid           uuid     NOT NULL PRIMARY KEY,
    account       text     NOT NULL,
    id            uuid     NOT NULL,
    type          smallint NOT NULL CHECK (type BETWEEN 1 AND 5),
    occurred_at   bigint,
    accepted_at   bigint   NOT NULL,
    recorded_at   bigint   NOT NULL,
    objects       text     NOT NULL,
    data          text     NOT NULL,
    traceparent   text,
    matched_count bigint   NOT NULL CHECK (matched_count >= 0),
    cursor        uuid
) PARTITION BY RANGE (uid);
CREATE INDEX events_by_id ON events (id);
CREATE INDEX events_incomplete ON events (uid) WHERE cursor IS NOT NULL;

-- Not partitioned: its key has no time in it. Rows are deleted in batches when their window is over.
CREATE TABLE event_keys (
    id          uuid   NOT NULL,
    account     text   NOT NULL,
    uid         uuid   NOT NULL,
    recorded_at bigint NOT NULL,
    body_hash   bigint NOT NULL,
    PRIMARY KEY (id, account)
);

-- Small and hot: every row comes, is perhaps updated, and goes. Vacuumed early and without pauses, so that
-- a lane's index range does not fill with the dead rows of what was delivered.
CREATE TABLE deliveries_open (
    id               uuid     NOT NULL PRIMARY KEY,
    event            uuid     NOT NULL,
    subscription     uuid     NOT NULL,
    shard            smallint NOT NULL CHECK (shard BETWEEN 0 AND 255),
    webhook          smallint NOT NULL CHECK (webhook BETWEEN 1 AND 6),
    attempts         bigint   NOT NULL CHECK (attempts >= 0),
    due_at           bigint   NOT NULL,
    created_at       bigint   NOT NULL,
    opened_at        bigint   NOT NULL,
    busy_until       bigint   NOT NULL DEFAULT 0,
    last_status_code integer,
    last_error       text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0.2);
CREATE INDEX deliveries_open_by_lane ON deliveries_open (shard, subscription, due_at);
CREATE INDEX deliveries_open_busy ON deliveries_open (shard, subscription, busy_until) WHERE busy_until > 0;

CREATE TABLE deliveries_closed (
    id                  uuid     NOT NULL PRIMARY KEY,
    event               uuid     NOT NULL,
    subscription        uuid     NOT NULL,
    webhook             smallint NOT NULL CHECK (webhook BETWEEN 1 AND 6),
    status              smallint NOT NULL CHECK (status BETWEEN 1 AND 4),
    reason              text,
    attempts            bigint   NOT NULL CHECK (attempts >= 0),
    created_at          bigint   NOT NULL,
    closed_at           bigint   NOT NULL,
    last_status_code    integer,
    last_error          text,
    attempt_at          bigint,
    attempt_duration_us bigint,
    attempt_detail      text,
    CHECK ((status = 1) = (reason IS NULL)),
    CHECK (status <> 1 OR last_status_code BETWEEN 200 AND 299)
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_closed_by_subscription ON deliveries_closed (subscription, id);
CREATE INDEX deliveries_closed_without_success ON deliveries_closed (status, id) WHERE status <> 1;

CREATE TABLE attempts (
    delivery    uuid    NOT NULL,
    number      bigint  NOT NULL CHECK (number >= 1),
    at          bigint  NOT NULL,
    duration_us bigint  NOT NULL,
    status_code integer,
    error       text,
    detail      text,
    next_due_at bigint,
    PRIMARY KEY (delivery, number, at)
) PARTITION BY RANGE (delivery);

CREATE TABLE accounts (
    id         uuid     NOT NULL PRIMARY KEY,
    name       text     NOT NULL,
    active     boolean  NOT NULL,
    roles      smallint NOT NULL CHECK (roles BETWEEN 0 AND 7),
    created_at bigint   NOT NULL,
    version    bigint   NOT NULL
);
CREATE INDEX accounts_by_version ON accounts (version);

CREATE TABLE api_keys (
    id         uuid     NOT NULL PRIMARY KEY,
    account    uuid     NOT NULL REFERENCES accounts (id),
    name       text,
    hash       bytea    NOT NULL UNIQUE,
    roles      smallint NOT NULL CHECK (roles BETWEEN 0 AND 7),
    created_at bigint   NOT NULL
);
CREATE INDEX api_keys_by_account ON api_keys (account);

CREATE TABLE grants (
    account     uuid   NOT NULL REFERENCES accounts (id),
    object_type bigint NOT NULL,
    object      uuid   NOT NULL,
    PRIMARY KEY (account, object_type, object)
);

CREATE TABLE subscriptions (
    id                  uuid             NOT NULL PRIMARY KEY,
    owner               uuid             NOT NULL,
    webhook             smallint         NOT NULL CHECK (webhook BETWEEN 1 AND 6),
    object_type         smallint         NOT NULL,
    object              uuid,
    url                 text             NOT NULL,
    custom_header       text,
    custom_header_value text,
    name                text,
    active              boolean          NOT NULL,
    signing_key         bytea            NOT NULL,
    timeout_ms          bigint           NOT NULL,
    retry_initial_ms    bigint           NOT NULL,
    retry_multiplier    double precision NOT NULL,
    retry_max_ms        bigint           NOT NULL,
    retry_give_up_ms    bigint           NOT NULL,
    retry_max_attempts  integer,
    max_in_flight       integer          NOT NULL,
    rate_limit          double precision,
    created_at          bigint           NOT NULL,
    updated_at          bigint           NOT NULL,
    open_from           bigint           NOT NULL,
    deleted             boolean          NOT NULL,
    version             bigint           NOT NULL,
    CHECK ((custom_header IS NULL) = (custom_header_value IS NULL)),
    CHECK (NOT deleted OR NOT active)
);
CREATE INDEX subscriptions_by_version ON subscriptions (version);
CREATE INDEX subscriptions_by_owner ON subscriptions (owner, id);

CREATE TABLE registry_version (
    one     integer NOT NULL PRIMARY KEY CHECK (one = 1),
    version bigint  NOT NULL
);
INSERT INTO registry_version VALUES (1, 0);

CREATE TABLE shards (
    shard       smallint NOT NULL PRIMARY KEY CHECK (shard BETWEEN 0 AND 255),
    owner       uuid,
    epoch       bigint   NOT NULL,
    lease_until bigint   NOT NULL
) WITH (fillfactor = 50);
INSERT INTO shards SELECT shard, NULL, 0, 0 FROM generate_series(0, 255) AS shard;

CREATE TABLE workers (
    id          uuid   NOT NULL PRIMARY KEY,
    lease_until bigint NOT NULL
);

CREATE TABLE consumers (
    id      uuid   NOT NULL PRIMARY KEY,
    held    bigint NOT NULL,
    told_at bigint NOT NULL
);

CREATE TABLE wakeups (
    shard        smallint NOT NULL,
    subscription uuid     NOT NULL,
    due_at       bigint   NOT NULL,
    PRIMARY KEY (shard, subscription)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE outbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text   NOT NULL CHECK (kind IN ('cancel_deliveries', 'dead_letter')),
    subscription  uuid,
    opened_before bigint,
    -- The delivery that is dead.
    delivery      uuid,
    created_at    bigint NOT NULL,
    CHECK ((kind = 'cancel_deliveries') = (subscription IS NOT NULL AND opened_before IS NOT NULL)),
    CHECK ((kind = 'dead_letter') = (delivery IS NOT NULL))
);
CREATE INDEX outbox_by_kind ON outbox (kind, id);

CREATE TABLE rejected_events (
    id          uuid   NOT NULL PRIMARY KEY,
    account     text   NOT NULL,
    received_at bigint NOT NULL,
    faults      text   NOT NULL,
    body        bytea  NOT NULL,
    body_bytes  bigint NOT NULL
);

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      bigint NOT NULL,
    account uuid,
    action  text   NOT NULL,
    subject text   NOT NULL
);

-- Dispatch holds the registry's version and the ownership of shards as they are while it records a batch;
-- whoever changes either waits for those who hold it and keeps the next ones waiting. An advisory lock,
-- because it is fair to whoever waits, which a row lock with many sharers is not. The time is taken after
-- the lock, so a change has a time after every batch before it and before every batch after it. In plpgsql
-- each statement sees what was committed before it began, so after the lock.
CREATE FUNCTION herald_hold(OUT version bigint, OUT now bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(18501);
    SELECT r.version, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint INTO version, now
    FROM registry_version r;
END $$;

CREATE FUNCTION herald_change(OUT version bigint, OUT now bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(18501);
    SELECT r.version, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint INTO version, now
    FROM registry_version r;
END $$;

-- Makes the partitions of the days from so many back to so many ahead. A partition is made apart and then
-- attached, which unlike CREATE TABLE … PARTITION OF does not stop readers and writers.
CREATE FUNCTION herald_make_partitions(back bigint, ahead bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day      timestamptz;
    parent   text;
    name     text;
    from_id  uuid;
    until_id uuid;
BEGIN
    PERFORM pg_advisory_xact_lock(18502);
    FOR day IN SELECT d FROM generate_series(
        date_trunc('day', clock_timestamp(), 'UTC') - back * interval '24 hours',
        date_trunc('day', clock_timestamp(), 'UTC') + ahead * interval '24 hours', interval '24 hours') AS d
    LOOP
        -- The first 48 bits of a UUIDv7 are its milliseconds.
        from_id := (lpad(to_hex((extract(epoch FROM day) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
        until_id := (lpad(to_hex((extract(epoch FROM day + interval '24 hours') * 1000)::bigint), 12, '0')
                     || repeat('0', 20))::uuid;
        FOREACH parent IN ARRAY ARRAY['events', 'deliveries_closed', 'attempts'] LOOP
            name := parent || to_char(day AT TIME ZONE 'UTC', '_YYYYMMDD');
            IF to_regclass(name) IS NULL THEN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                               parent, name, from_id, until_id);
            END IF;
        END LOOP;
    END LOOP;
END $$;
