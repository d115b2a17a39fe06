-- Event types and object types that are registered while Herald runs, and subscriptions to event types.
--
-- A version of Herald that does not know this yet goes on beside it as long as none is registered and no subscription
-- has event types: it cannot read an event or a subscription of a kind that it does not know.

-- Neither a number nor a name is used again: events in the ledger have the number, producers and subscribers the name.
-- So what is deleted stays, and may come back.
CREATE TABLE event_types (
    code        smallint NOT NULL PRIMARY KEY CHECK (code >= 1000),
    name        text     NOT NULL UNIQUE,
    description text,
    objects     text     NOT NULL,
    schema      text,
    example     text,
    archived    boolean  NOT NULL,
    built_in    boolean  NOT NULL,
    deleted     boolean  NOT NULL,
    created_at  bigint   NOT NULL,
    updated_at  bigint   NOT NULL,
    version     bigint   NOT NULL
);
CREATE INDEX event_types_by_version ON event_types (version);

CREATE TABLE object_types (
    number  smallint NOT NULL PRIMARY KEY CHECK (number >= 1000),
    name    text     NOT NULL UNIQUE,
    deleted boolean  NOT NULL,
    version bigint   NOT NULL
);
CREATE INDEX object_types_by_version ON object_types (version);

ALTER TABLE events DROP CONSTRAINT events_type_check;
ALTER TABLE deliveries_open DROP CONSTRAINT deliveries_open_webhook_check;
ALTER TABLE deliveries_closed DROP CONSTRAINT deliveries_closed_webhook_check;
ALTER TABLE subscriptions DROP CONSTRAINT subscriptions_webhook_check;

-- With webhook 7: a JSON array of names and prefixes, and the name of object_type, which is 0 where there is no filter.
ALTER TABLE subscriptions ADD COLUMN event_types text;
ALTER TABLE subscriptions ADD COLUMN object_name text;
-- How messages are written: 1 Enate, 2 StandardWebhooks; none is Enate, as a version writes it that does not know it.
ALTER TABLE subscriptions ADD COLUMN format smallint;
ALTER TABLE subscriptions ADD CONSTRAINT subscriptions_event_types_check
    CHECK (webhook BETWEEN 1 AND 7 AND (webhook = 7) = (event_types IS NOT NULL)
           AND (object_type = 0 OR webhook < 7) = (object_name IS NULL)) NOT VALID;
