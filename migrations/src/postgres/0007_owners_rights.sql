-- Making and dropping days with the rights of the tables' owner, so that Herald may run as a role that reads and writes
-- rows and owns nothing: before, such a role could make no partition, and on a certain midnight nothing could be
-- recorded any more.
--
-- The functions of the versions before go on under other names, with the rights of who calls them. A version that
-- does not know this yet calls the new ones by the old names.

ALTER FUNCTION herald_make_partitions(bigint, bigint) RENAME TO herald_make_partitions_as_caller;
ALTER FUNCTION herald_drop_day(bigint, bigint, bigint) RENAME TO herald_drop_day_as_caller;

-- Everybody may call a function, so these look whether the caller could do the like by hand, and make no more than
-- they are for.
CREATE FUNCTION herald_make_partitions(back bigint, ahead bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'events', 'INSERT') THEN
        RAISE EXCEPTION 'role % may not insert into events', session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM herald_make_partitions_as_caller(least(back, 31), least(ahead, 31));
END $$;

CREATE FUNCTION herald_drop_day(
    before bigint, ended_since bigint, dead_since bigint,
    OUT dropped text, OUT dropped_events bigint, OUT dropped_deliveries bigint
) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'events', 'DELETE') THEN
        RAISE EXCEPTION 'role % may not delete from events', session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT d.dropped, d.dropped_events, d.dropped_deliveries INTO dropped, dropped_events, dropped_deliveries
    FROM herald_drop_day_as_caller(before, ended_since, dead_since) AS d;
END $$;

-- What they name is found in the schema of the ledger, whatever search_path the caller has. Temporary tables come
-- last, so nobody can put one of his in the place of a table.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION herald_make_partitions(bigint, bigint) SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION herald_drop_day(bigint, bigint, bigint) SET search_path = %I, pg_temp', current_schema());
END $$;
