-- Which signatures messages have, and the Ed25519 keys of those that have v1a.
--
-- Older versions of Herald leave these columns as they are, and sign with v1 alone.

-- 1 v1, 2 v1 and v1a; none is v1.
ALTER TABLE subscriptions ADD COLUMN signatures INTEGER;
-- Seeds of 32 bytes: of the key that signs now, and of the one before it, which signs until former_key_until.
ALTER TABLE subscriptions ADD COLUMN asymmetric_key BLOB;
ALTER TABLE subscriptions ADD COLUMN former_asymmetric_key BLOB;
