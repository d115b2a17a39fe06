-- The key that a rotation replaced, and until when it goes on signing beside the new one.
--
-- A version of Herald that does not know this yet may run beside it: it signs with the new key alone, and leaves these
-- columns as they are.
ALTER TABLE subscriptions ADD COLUMN former_key BLOB;
ALTER TABLE subscriptions ADD COLUMN former_key_until INTEGER;
