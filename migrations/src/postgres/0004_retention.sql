-- The tables of sqlite/0004_retention.sql, and dropping a day whole.
--
-- A version of Herald that does not know this yet may run beside it: it writes events without expired_count,
-- which is then 0, and never takes away.

-- It needs the table to itself for a moment, and everybody waits behind it: where somebody reads for long, it fails
-- and is tried again rather than hold them up.
SET LOCAL lock_timeout = '2s';
ALTER TABLE events ADD COLUMN expired_count bigint NOT NULL DEFAULT 0;
-- Not valid: so that nobody waits while it is checked that 0 is not below 0 in every row.
ALTER TABLE events ADD CONSTRAINT events_expired_count_check
    CHECK (expired_count >= 0 AND expired_count <= matched_count) NOT VALID;

CREATE TABLE expired (
    one        integer NOT NULL PRIMARY KEY CHECK (one = 1),
    events     bigint  NOT NULL,
    delivered  bigint  NOT NULL,
    dead       bigint  NOT NULL,
    cancelled  bigint  NOT NULL,
    refused    bigint  NOT NULL,
    rejected   bigint  NOT NULL,
    keys_until uuid    NOT NULL
);
INSERT INTO expired VALUES (1, 0, 0, 0, 0, 0, 0, '00000000-0000-0000-0000-000000000000');

-- Drops the oldest day before a time, with its events, closed deliveries and attempts. What must stay of it
-- goes to one partition for all that is older than the days there are, the past: open deliveries' events, dead
-- deliveries, and what ended late. A row cannot be put there while its day is attached, so the past is made
-- anew, of the past as it was and the day, and takes the place of both in one short step.
--
-- All that takes time is done before that step and keeps nobody waiting: nothing changes what is so old but its
-- deliveries that are still open, and a manual retry, which waits (lock 18503, see shared/ledger's `reading`).
-- What the former changed meanwhile is looked up by key, in the step. The step needs the tables to itself for
-- some milliseconds. Because everybody else waits behind it, it waits for those who read them a tenth of a
-- second at a time, and gives up after some tries with lock_not_available: the caller tries again later.
--
-- Times are microseconds since 1970. Returns the day, and how many events and deliveries went; nulls if there is
-- no such day.
CREATE FUNCTION herald_drop_day(
    before bigint, ended_since bigint, dead_since bigint,
    OUT dropped text, OUT dropped_events bigint, OUT dropped_deliveries bigint
) LANGUAGE plpgsql AS $$
DECLARE
    parents      text[] := ARRAY['events', 'deliveries_closed', 'attempts'];
    keys         text[] := ARRAY['uid', 'id', 'delivery'];
    suffix       text   := to_char(clock_timestamp() AT TIME ZONE 'UTC', '"_past_"YYYYMMDDHH24MISSUS');
    new_events   text   := 'events' || suffix;
    new_closed   text   := 'deliveries_closed' || suffix;
    new_attempts text   := 'attempts' || suffix;
    former       text[];
    bound        uuid;
    gone         record;
    gone_matched bigint;
    gone_of_kept bigint;
    any_found    boolean;
BEGIN
    IF NOT pg_try_advisory_xact_lock(18504) THEN
        RAISE EXCEPTION 'another process removes what has expired' USING ERRCODE = 'lock_not_available';
    END IF;
    SELECT min(right(c.relname, 8)) INTO dropped
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_\d{8}$'
      AND right(c.relname, 8) < to_char(to_timestamp(before / 1000000) AT TIME ZONE 'UTC', 'YYYYMMDD');
    IF dropped IS NULL THEN
        RETURN;
    END IF;
    -- The first id of the day after, as in herald_make_partitions.
    bound := (lpad(to_hex((extract(epoch FROM (to_date(dropped, 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC') * 1000)
              ::bigint), 12, '0') || repeat('0', 20))::uuid;

    -- Waits for nobody but a vacuum, which makes way for it after a second and then stays away.
    SELECT array_agg(format('%I', c.relname) ORDER BY c.relname) INTO former
    FROM unnest(parents) AS p (name)
    JOIN pg_inherits i ON i.inhparent = p.name::regclass JOIN pg_class c ON c.oid = i.inhrelid
    WHERE c.relname = p.name || '_' || dropped OR c.relname ~ ('^' || p.name || '_past_\d+$');
    PERFORM set_config('lock_timeout', '5s', true);
    EXECUTE 'LOCK TABLE ' || array_to_string(former, ', ') || ' IN SHARE UPDATE EXCLUSIVE MODE';
    PERFORM pg_advisory_xact_lock(18503);

    IF EXISTS (SELECT FROM events WHERE uid < bound AND cursor IS NOT NULL) THEN
        RAISE EXCEPTION 'an event of % or before is not matched to its end', dropped USING ERRCODE = 'lock_not_available';
    END IF;
    -- What may still change.
    CREATE TEMPORARY TABLE was_open (id uuid PRIMARY KEY, event uuid, attempts bigint) ON COMMIT DROP;
    INSERT INTO was_open SELECT o.id, o.event, o.attempts FROM deliveries_open o WHERE o.id < bound;
    ANALYZE was_open;

    FOR n IN 1..3 LOOP
        -- The constraint spares the step a reading of it all.
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL, CONSTRAINT past CHECK (%I < %L))',
                       parents[n] || suffix, parents[n], keys[n], bound);
    END LOOP;
    EXECUTE format('INSERT INTO %I SELECT * FROM deliveries_closed
                    WHERE id < $1 AND closed_at >= CASE status WHEN 2 THEN $2 ELSE $3 END', new_closed)
        USING bound, dead_since, ended_since;
    EXECUTE format('CREATE TEMPORARY TABLE kept ON COMMIT DROP AS
                    SELECT event FROM was_open UNION SELECT event FROM %I', new_closed);
    ANALYZE kept;
    EXECUTE format('INSERT INTO %I SELECT e.* FROM events e JOIN kept ON kept.event = e.uid WHERE e.uid < $1', new_events)
        USING bound;
    EXECUTE format('INSERT INTO %I SELECT * FROM attempts WHERE delivery < $1
                    AND delivery IN (SELECT id FROM was_open UNION ALL SELECT id FROM %I)', new_attempts, new_closed)
        USING bound;

    -- What goes, by how it ended; how much of it is of events that stay, which count it; and whether the rest is
    -- what the events that go have matched.
    SELECT count(*) AS n, count(*) FILTER (WHERE status = 1) AS delivered, count(*) FILTER (WHERE status = 2) AS dead,
           count(*) FILTER (WHERE status = 3) AS cancelled, count(*) FILTER (WHERE status = 4) AS refused
    INTO gone FROM deliveries_closed
    WHERE id < bound AND closed_at < CASE status WHEN 2 THEN dead_since ELSE ended_since END;
    EXECUTE format('WITH gone AS (
                        SELECT d.event, count(*) AS n FROM deliveries_closed d JOIN kept ON kept.event = d.event
                        WHERE d.id < $1 AND d.closed_at < CASE d.status WHEN 2 THEN $2 ELSE $3 END GROUP BY d.event),
                    counted AS (
                        UPDATE %I e SET expired_count = e.expired_count + gone.n FROM gone WHERE e.uid = gone.event)
                    SELECT coalesce(sum(n), 0) FROM gone', new_events)
        INTO gone_of_kept USING bound, dead_since, ended_since;
    SELECT count(*), coalesce(sum(e.matched_count - e.expired_count), 0) INTO dropped_events, gone_matched
    FROM events e WHERE e.uid < bound AND NOT EXISTS (SELECT FROM kept WHERE kept.event = e.uid);
    dropped_deliveries := gone.n;
    IF gone_matched <> gone.n - gone_of_kept THEN
        RAISE EXCEPTION '% does not add up, and is kept: its events matched % deliveries, and there are %',
                        dropped, gone_matched, gone.n - gone_of_kept;
    END IF;
    FOR n IN 1..3 LOOP
        EXECUTE format('ANALYZE %I', parents[n] || suffix);
    END LOOP;

    PERFORM set_config('lock_timeout', '100ms', true);
    FOR try IN 1..8 LOOP
        BEGIN
            EXECUTE 'LOCK TABLE ONLY events, ONLY deliveries_closed, ONLY attempts, ' || array_to_string(former, ', ')
                    || ' IN ACCESS EXCLUSIVE MODE';
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF try = 8 THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.4);
    END LOOP;
    -- By key, whatever the planner thinks of tables that it does not know.
    PERFORM set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
            set_config('enable_mergejoin', 'off', true);
    -- A version that does not know the lock lets deliveries be retried meanwhile.
    IF EXISTS (SELECT FROM deliveries_open o
               WHERE o.id < bound AND NOT EXISTS (SELECT FROM was_open w WHERE w.id = o.id)) THEN
        RAISE EXCEPTION 'a delivery of % or before was opened again meanwhile', dropped USING ERRCODE = 'lock_not_available';
    END IF;
    CREATE TEMPORARY TABLE changed ON COMMIT DROP AS
        SELECT w.id FROM was_open w LEFT JOIN deliveries_open o ON o.id = w.id WHERE o.attempts IS DISTINCT FROM w.attempts;
    EXECUTE format('INSERT INTO %I SELECT d.* FROM changed JOIN deliveries_closed d ON d.id = changed.id AND d.id < $1
                    ON CONFLICT DO NOTHING', new_closed) USING bound;
    EXECUTE format('INSERT INTO %I SELECT a.* FROM changed JOIN attempts a ON a.delivery = changed.id AND a.delivery < $1
                    ON CONFLICT DO NOTHING', new_attempts) USING bound;

    FOR n IN 1..cardinality(former) LOOP
        EXECUTE 'DROP TABLE ' || former[n];
    END LOOP;
    FOR n IN 1..3 LOOP
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
                       parents[n], parents[n] || suffix, bound);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT past', parents[n] || suffix);
    END LOOP;
    UPDATE expired SET events = events + dropped_events, delivered = delivered + gone.delivered, dead = dead + gone.dead,
                       cancelled = cancelled + gone.cancelled, refused = refused + gone.refused;
    DROP TABLE was_open, kept, changed;
END $$;
