-- Rows of the tables that fill and empty within seconds are found by their index, whatever PostgreSQL believes of the
-- table. A plan is made once and stays: joined to arrays, a table that was thought to be empty is read from end to end,
-- or through the whole of an index, when it is full of rows or of dead ones. So no such table is joined here; rows are
-- looked up one by one. Herald's sessions ask for indexes besides, see shared/ledger's `session::Plans`.
--
-- A version of Herald that does not know this yet goes on with statements of its own, and calls herald_record as before.

-- When failed deliveries are due again, and what their attempts came to. Returns which were open. The arrays stand side
-- by side, ids in ascending order; what stands for NULL in them is explained in 0003_at_once.sql.
CREATE FUNCTION herald_reopen(
    ids uuid[], due bigint[], numbers bigint[], status_codes integer[], errors text[]
) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 1 .. cardinality(ids) LOOP
        UPDATE deliveries_open
        SET due_at = due[n], attempts = numbers[n], busy_until = 0,
            last_status_code = nullif(status_codes[n], -2147483648),
            last_error = nullif(errors[n], E'\u0001NULL\u0001')
        WHERE id = ids[n] AND attempts < numbers[n];
        IF FOUND THEN
            RETURN NEXT ids[n];
        END IF;
    END LOOP;
END $$;

-- Which deliveries a worker that gives its shards back still has in flight, and until when; of shards that are still
-- its own, because of others the present owner has them. Ids in ascending order.
CREATE FUNCTION herald_mark_busy(ids uuid[], untils bigint[], caller uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    owned smallint[] := ARRAY(SELECT s.shard FROM shards s WHERE s.owner = caller);
BEGIN
    FOR n IN 1 .. cardinality(ids) LOOP
        UPDATE deliveries_open SET busy_until = untils[n] WHERE id = ids[n] AND shard = ANY (owned);
    END LOOP;
END $$;

-- As in 0005_openings.sql, but for how the keys of repeated events are looked up.
CREATE OR REPLACE FUNCTION herald_record(
    expected bigint,
    uids uuid[], ids uuid[], accounts text[], types smallint[], occurred bigint[], accepted bigint[],
    objects text[], bodies text[], traceparents text[], hashes bigint[], counts bigint[], cursors uuid[],
    delivery_ids uuid[], delivery_events uuid[], delivery_subscriptions uuid[], delivery_shards smallint[],
    delivery_webhooks smallint[],
    caller uuid, caller_shards smallint[], caller_epochs bigint[], repeat_window bigint
) RETURNS TABLE (what smallint, event uuid, number bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    held    record;
    fresh   uuid[];
    all_new boolean;
    others  smallint[];
BEGIN
    SELECT * INTO held FROM herald_hold();
    IF held.version <> expected THEN
        RETURN QUERY SELECT 0::smallint, NULL::uuid, NULL::bigint;
        RETURN;
    END IF;
    RETURN QUERY SELECT 1::smallint, NULL::uuid, held.now::bigint;

    -- Of one that comes twice in a batch the first counts; and all in one order, so that two who have the same
    -- events in hand wait for one another and never in a circle.
    WITH taken AS (
        INSERT INTO event_keys (id, account, uid, recorded_at, body_hash)
        SELECT k.id, k.account, k.uid, held.now, k.hash
        FROM (SELECT DISTINCT ON (e.id, e.account) e.id, e.account, e.uid, e.hash
              FROM unnest(ids, accounts, uids, hashes) WITH ORDINALITY AS e (id, account, uid, hash, n)
              ORDER BY e.id, e.account, e.n) k
        ON CONFLICT (id, account) DO UPDATE
        SET uid = excluded.uid, recorded_at = excluded.recorded_at, body_hash = excluded.body_hash
        WHERE event_keys.recorded_at < held.now - repeat_window
        RETURNING event_keys.uid)
    SELECT coalesce(array_agg(taken.uid), '{}') INTO fresh FROM taken;
    all_new := cardinality(fresh) = cardinality(uids);
    IF NOT all_new THEN
        RETURN QUERY SELECT 2::smallint, e.uid,
            ((SELECT k.body_hash FROM event_keys k WHERE k.id = e.id AND k.account = e.account)
             IS DISTINCT FROM e.hash)::integer::bigint
        FROM unnest(ids, accounts, uids, hashes) AS e (id, account, uid, hash)
        WHERE NOT e.uid = ANY (fresh);
    END IF;

    INSERT INTO events (uid, account, id, type, occurred_at, accepted_at, recorded_at, objects, data, traceparent,
                        matched_count, cursor)
    SELECT e.uid, e.account, e.id, e.type, nullif(e.occurred, -9223372036854775808), e.accepted, held.now, e.objects,
           e.body, nullif(e.traceparent, E'\u0001NULL\u0001'), e.matched,
           nullif(e.cursor, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    FROM unnest(uids, accounts, ids, types, occurred, accepted, objects, bodies, traceparents, counts, cursors)
         AS e (uid, account, id, type, occurred, accepted, objects, body, traceparent, matched, cursor)
    WHERE all_new OR e.uid = ANY (fresh);

    INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at,
                                 opened_version)
    SELECT d.id, d.event, d.subscription, d.shard, d.webhook, 0, held.now, held.now, held.now, held.version
    FROM unnest(delivery_ids, delivery_events, delivery_subscriptions, delivery_shards, delivery_webhooks)
         AS d (id, event, subscription, shard, webhook)
    WHERE all_new OR d.event = ANY (fresh)
    ON CONFLICT DO NOTHING;

    SELECT array_agg(o.shard) INTO others
    FROM unnest(caller_shards, caller_epochs) AS o (shard, epoch)
    JOIN shards s ON s.shard = o.shard
    WHERE s.owner IS DISTINCT FROM caller OR s.epoch <> o.epoch;
    IF others IS NOT NULL THEN
        INSERT INTO wakeups (shard, subscription, due_at)
        SELECT DISTINCT d.shard, d.subscription, held.now
        FROM unnest(delivery_events, delivery_subscriptions, delivery_shards) AS d (event, subscription, shard)
        WHERE d.shard = ANY (others) AND (all_new OR d.event = ANY (fresh))
        ORDER BY d.shard, d.subscription
        ON CONFLICT (shard, subscription) DO UPDATE SET due_at = least(wakeups.due_at, excluded.due_at);
        IF FOUND THEN
            NOTIFY herald_wakeup;
        END IF;
        RETURN QUERY SELECT 3::smallint, NULL::uuid, o::bigint FROM unnest(others) AS o;
    END IF;
END $$;
