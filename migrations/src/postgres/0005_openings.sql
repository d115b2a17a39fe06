-- The columns of sqlite/0005_openings.sql, where each is explained.
--
-- A version of Herald that does not know them may run beside this: what it opens and deactivates has 0 there, and the
-- times tell. Its records have the version, because the function below writes it.

-- The tables are needed for a moment, and everybody waits behind that: where somebody reads for long, it fails and is
-- tried again rather than hold them up.
SET LOCAL lock_timeout = '2s';
ALTER TABLE deliveries_open ADD COLUMN opened_version bigint NOT NULL DEFAULT 0;
ALTER TABLE subscriptions
    ADD COLUMN open_from_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN deactivated_at bigint,
    ADD COLUMN deactivation_reason text;
ALTER TABLE outbox ADD COLUMN opened_before_version bigint NOT NULL DEFAULT 0;

-- As in 0003_at_once.sql, and with opened_version.
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
        RETURN QUERY SELECT 2::smallint, e.uid, (k.body_hash IS DISTINCT FROM e.hash)::integer::bigint
        FROM unnest(ids, accounts, uids, hashes) AS e (id, account, uid, hash)
        LEFT JOIN event_keys k ON k.id = e.id AND k.account = e.account
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
