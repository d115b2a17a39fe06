-- What is over is not kept for ever. So that the account still adds up, an event that outlives some of its
-- deliveries counts those that are gone, and what is gone altogether is summed in one row.

-- How many of its deliveries are gone: with the rows that are left they make up its matched_count.
ALTER TABLE events ADD COLUMN expired_count INTEGER NOT NULL DEFAULT 0
    CHECK (expired_count >= 0 AND expired_count <= matched_count);

CREATE TABLE expired (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    events     INTEGER NOT NULL,
    -- Deliveries, by how they ended.
    delivered  INTEGER NOT NULL,
    dead       INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    rejected   INTEGER NOT NULL,
    -- The keys of the events before this uid are forgotten.
    keys_until BLOB    NOT NULL
) STRICT;
INSERT INTO expired VALUES (1, 0, 0, 0, 0, 0, 0, x'00000000000000000000000000000000');
