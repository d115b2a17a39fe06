-- Event types and object types that are registered while Herald runs, and subscriptions to event types.

-- Neither a number nor a name is used again: events in the ledger have the number, producers and subscribers the name.
-- So what is deleted stays, and may come back.
CREATE TABLE event_types (
    code        INTEGER NOT NULL PRIMARY KEY CHECK (code >= 1000),
    name        TEXT    NOT NULL UNIQUE,
    description TEXT,
    objects     TEXT    NOT NULL,
    schema      TEXT,
    example     TEXT,
    archived    INTEGER NOT NULL CHECK (archived IN (0, 1)),
    built_in    INTEGER NOT NULL CHECK (built_in IN (0, 1)),
    deleted     INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL
) STRICT;
CREATE INDEX event_types_by_version ON event_types (version);

CREATE TABLE object_types (
    number  INTEGER NOT NULL PRIMARY KEY CHECK (number >= 1000),
    name    TEXT    NOT NULL UNIQUE,
    deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    version INTEGER NOT NULL
) STRICT;
CREATE INDEX object_types_by_version ON object_types (version);

-- With webhook 7: a JSON array of names and prefixes, and the name of object_type, which is 0 where there is no filter.
ALTER TABLE subscriptions ADD COLUMN event_types TEXT;
ALTER TABLE subscriptions ADD COLUMN object_name TEXT;
-- How messages are written: 1 Enate, 2 StandardWebhooks; none is Enate, as before.
ALTER TABLE subscriptions ADD COLUMN format INTEGER;

-- Checks that know no more than the five types and six webhooks. SQLite takes a check away by changing the text of the
-- table's definition (https://sqlite.org/lang_altertable.html, section 8); the rows stay as they are, however many.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (type BETWEEN 1 AND 5)', 'CHECK (type >= 1)')
WHERE type = 'table' AND name = 'events';
UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (webhook BETWEEN 1 AND 6)', 'CHECK (webhook BETWEEN 1 AND 7)')
WHERE type = 'table' AND name IN ('deliveries_open', 'deliveries_closed', 'subscriptions');
PRAGMA writable_schema = RESET;
