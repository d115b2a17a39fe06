-- The key that a rotation replaced, and until when it goes on signing beside the new one.
--
-- A version of Herald that does not know this yet may run beside it: it signs with the new key alone, and leaves these
-- columns as they are.

-- It needs the table to itself for a moment, and everybody waits behind it: where somebody reads for long, it fails
-- and is tried again rather than hold them up.
SET LOCAL lock_timeout = '2s';
ALTER TABLE subscriptions ADD COLUMN former_key bytea;
ALTER TABLE subscriptions ADD COLUMN former_key_until bigint;
