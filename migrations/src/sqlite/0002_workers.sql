-- Who delivers, when several processes share a ledger. On SQLite one process has it to itself; the tables
-- are there so that one set of statements serves both databases.
CREATE TABLE workers (
    id          BLOB    NOT NULL PRIMARY KEY,
    lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What each consumer of the event queue has in hand: for the audit.
CREATE TABLE consumers (
    id      BLOB    NOT NULL PRIMARY KEY,
    held    INTEGER NOT NULL,
    told_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a former owner may still have in flight: few rows, looked up by lane.
CREATE INDEX deliveries_open_busy ON deliveries_open (shard, subscription, busy_until) WHERE busy_until > 0;
