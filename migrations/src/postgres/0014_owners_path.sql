-- Days are made and dropped with the rights of the tables' owner, see 0007_owners_rights.sql, and what does so looks up
-- nothing in the ledger's schema any more but the tables and functions that it names with the schema.
--
-- Before, the schema was searched for everything. A call such as right(name, 8) fits no function of PostgreSQL's exactly:
-- one of that name that somebody else made in the schema, and that does, would have run with the owner's rights.
--
-- The bodies are those of 0001_ledger.sql and 0004_retention.sql, where they are explained. In this text `ledger.` stands
-- for the schema and `:home` for its name; a body cannot say either otherwise.
DO $make$
DECLARE
    statement text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[
$function$
CREATE OR REPLACE FUNCTION ledger.herald_make_partitions_as_caller(back bigint, ahead bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home     text := :home;
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
            IF to_regclass(format('%I.%I', home, name)) IS NULL THEN
                EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                               home, name, parent);
                EXECUTE format('ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
                               home, parent, name, from_id, until_id);
            END IF;
        END LOOP;
    END LOOP;
END $$;
$function$, $function$
CREATE OR REPLACE FUNCTION ledger.herald_drop_day_as_caller(
    before bigint, ended_since bigint, dead_since bigint,
    OUT dropped text, OUT dropped_events bigint, OUT dropped_deliveries bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home         text   := :home;
    parents      text[] := ARRAY['events', 'deliveries_closed', 'attempts'];
    keys         text[] := ARRAY['uid', 'id', 'delivery'];
    suffix       text   := to_char(clock_timestamp() AT TIME ZONE 'UTC', '"_past_"YYYYMMDDHH24MISSUS');
    new_events   text   := format('%I.%I', home, 'events' || suffix);
    new_closed   text   := format('%I.%I', home, 'deliveries_closed' || suffix);
    new_attempts text   := format('%I.%I', home, 'attempts' || suffix);
    former       text[];
    bound        uuid;
    gone         record;
    gone_matched bigint;
    gone_of_kept bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(18504) THEN
        RAISE EXCEPTION 'another process removes what has expired' USING ERRCODE = 'lock_not_available';
    END IF;
    SELECT min(right(c.relname, 8)) INTO dropped
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = format('%I.events', home)::regclass AND c.relname ~ '^events_\d{8}$'
      AND right(c.relname, 8) < to_char(to_timestamp(before / 1000000) AT TIME ZONE 'UTC', 'YYYYMMDD');
    IF dropped IS NULL THEN
        RETURN;
    END IF;
    -- The first id of the day after, as in herald_make_partitions.
    bound := (lpad(to_hex((extract(epoch FROM (to_date(dropped, 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC') * 1000)
              ::bigint), 12, '0') || repeat('0', 20))::uuid;

    -- Waits for nobody but a vacuum, which makes way for it after a second and then stays away.
    SELECT array_agg(format('%I.%I', home, c.relname) ORDER BY c.relname) INTO former
    FROM unnest(parents) AS p (name)
    JOIN pg_inherits i ON i.inhparent = format('%I.%I', home, p.name)::regclass
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE c.relname = p.name || '_' || dropped OR c.relname ~ ('^' || p.name || '_past_\d+$');
    PERFORM set_config('lock_timeout', '5s', true);
    EXECUTE 'LOCK TABLE ' || array_to_string(former, ', ') || ' IN SHARE UPDATE EXCLUSIVE MODE';
    PERFORM pg_advisory_xact_lock(18503);

    IF EXISTS (SELECT FROM ledger.events WHERE uid < bound AND cursor IS NOT NULL) THEN
        RAISE EXCEPTION 'an event of % or before is not matched to its end', dropped USING ERRCODE = 'lock_not_available';
    END IF;
    -- What may still change.
    CREATE TEMPORARY TABLE was_open (id uuid PRIMARY KEY, event uuid, attempts bigint) ON COMMIT DROP;
    INSERT INTO was_open SELECT o.id, o.event, o.attempts FROM ledger.deliveries_open o WHERE o.id < bound;
    ANALYZE was_open;

    FOR n IN 1..3 LOOP
        -- The constraint spares the step a reading of it all.
        EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING ALL, CONSTRAINT past CHECK (%4$I < %5$L))',
                       home, parents[n] || suffix, parents[n], keys[n], bound);
    END LOOP;
    EXECUTE format('INSERT INTO %s SELECT * FROM %I.deliveries_closed
                    WHERE id < $1 AND closed_at >= CASE status WHEN 2 THEN $2 ELSE $3 END', new_closed, home)
        USING bound, dead_since, ended_since;
    EXECUTE format('CREATE TEMPORARY TABLE kept ON COMMIT DROP AS
                    SELECT event FROM was_open UNION SELECT event FROM %s', new_closed);
    ANALYZE kept;
    EXECUTE format('INSERT INTO %s SELECT e.* FROM %I.events e JOIN kept ON kept.event = e.uid WHERE e.uid < $1',
                   new_events, home)
        USING bound;
    EXECUTE format('INSERT INTO %s SELECT * FROM %I.attempts WHERE delivery < $1
                    AND delivery IN (SELECT id FROM was_open UNION ALL SELECT id FROM %s)', new_attempts, home, new_closed)
        USING bound;

    -- What goes, by how it ended; how much of it is of events that stay, which count it; and whether the rest is
    -- what the events that go have matched.
    SELECT count(*) AS n, count(*) FILTER (WHERE status = 1) AS delivered, count(*) FILTER (WHERE status = 2) AS dead,
           count(*) FILTER (WHERE status = 3) AS cancelled, count(*) FILTER (WHERE status = 4) AS refused
    INTO gone FROM ledger.deliveries_closed
    WHERE id < bound AND closed_at < CASE status WHEN 2 THEN dead_since ELSE ended_since END;
    EXECUTE format('WITH gone AS (
                        SELECT d.event, count(*) AS n FROM %I.deliveries_closed d JOIN kept ON kept.event = d.event
                        WHERE d.id < $1 AND d.closed_at < CASE d.status WHEN 2 THEN $2 ELSE $3 END GROUP BY d.event),
                    counted AS (
                        UPDATE %s e SET expired_count = e.expired_count + gone.n FROM gone WHERE e.uid = gone.event)
                    SELECT coalesce(sum(n), 0) FROM gone', home, new_events)
        INTO gone_of_kept USING bound, dead_since, ended_since;
    SELECT count(*), coalesce(sum(e.matched_count - e.expired_count), 0) INTO dropped_events, gone_matched
    FROM ledger.events e WHERE e.uid < bound AND NOT EXISTS (SELECT FROM kept WHERE kept.event = e.uid);
    dropped_deliveries := gone.n;
    IF gone_matched <> gone.n - gone_of_kept THEN
        RAISE EXCEPTION '% does not add up, and is kept: its events matched % deliveries, and there are %',
                        dropped, gone_matched, gone.n - gone_of_kept;
    END IF;
    FOR n IN 1..3 LOOP
        EXECUTE format('ANALYZE %I.%I', home, parents[n] || suffix);
    END LOOP;

    PERFORM set_config('lock_timeout', '100ms', true);
    FOR try IN 1..8 LOOP
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %1$I.events, ONLY %1$I.deliveries_closed, ONLY %1$I.attempts, %2$s
                            IN ACCESS EXCLUSIVE MODE', home, array_to_string(former, ', '));
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
    IF EXISTS (SELECT FROM ledger.deliveries_open o
               WHERE o.id < bound AND NOT EXISTS (SELECT FROM was_open w WHERE w.id = o.id)) THEN
        RAISE EXCEPTION 'a delivery of % or before was opened again meanwhile', dropped USING ERRCODE = 'lock_not_available';
    END IF;
    CREATE TEMPORARY TABLE changed ON COMMIT DROP AS
        SELECT w.id FROM was_open w LEFT JOIN ledger.deliveries_open o ON o.id = w.id
        WHERE o.attempts IS DISTINCT FROM w.attempts;
    EXECUTE format('INSERT INTO %s SELECT d.* FROM changed
                    JOIN %I.deliveries_closed d ON d.id = changed.id AND d.id < $1 ON CONFLICT DO NOTHING', new_closed, home)
        USING bound;
    EXECUTE format('INSERT INTO %s SELECT a.* FROM changed
                    JOIN %I.attempts a ON a.delivery = changed.id AND a.delivery < $1 ON CONFLICT DO NOTHING',
                   new_attempts, home)
        USING bound;

    FOR n IN 1..cardinality(former) LOOP
        EXECUTE 'DROP TABLE ' || former[n];
    END LOOP;
    FOR n IN 1..3 LOOP
        EXECUTE format('ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (MINVALUE) TO (%4$L)',
                       home, parents[n], parents[n] || suffix, bound);
        EXECUTE format('ALTER TABLE %I.%I DROP CONSTRAINT past', home, parents[n] || suffix);
    END LOOP;
    UPDATE ledger.expired SET events = events + dropped_events, delivered = delivered + gone.delivered,
                              dead = dead + gone.dead, cancelled = cancelled + gone.cancelled,
                              refused = refused + gone.refused;
    DROP TABLE was_open, kept, changed;
END $$;
$function$, $function$
CREATE OR REPLACE FUNCTION ledger.herald_make_partitions(back bigint, ahead bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT has_table_privilege(session_user, format('%I.events', :home), 'INSERT') THEN
        RAISE EXCEPTION 'role % may not insert into events', session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM ledger.herald_make_partitions_as_caller(least(back, 31), least(ahead, 31));
END $$;
$function$, $function$
CREATE OR REPLACE FUNCTION ledger.herald_drop_day(
    before bigint, ended_since bigint, dead_since bigint,
    OUT dropped text, OUT dropped_events bigint, OUT dropped_deliveries bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT has_table_privilege(session_user, format('%I.events', :home), 'DELETE') THEN
        RAISE EXCEPTION 'role % may not delete from events', session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT d.dropped, d.dropped_events, d.dropped_deliveries INTO dropped, dropped_events, dropped_deliveries
    FROM ledger.herald_drop_day_as_caller(before, ended_since, dead_since) AS d;
END $$;
$function$
    ] LOOP
        EXECUTE replace(replace(statement, 'ledger.', format('%I.', current_schema())),
                        ':home', quote_literal(current_schema()));
    END LOOP;
END $make$;
