-- The registry's version of a deactivation, noted for a version of Herald that does not note it itself.
--
-- One from before 0005_openings.sql may run beside this. What it deactivates or deletes has the new time in open_from, and
-- in open_from_version still what was there: 0, or the version of an earlier deactivation, by which a worker would go on
-- sending what this one cancels. A version of Herald that knows the column never changes the one without the other.
CREATE FUNCTION herald_note_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The registry's version that this change made.
    NEW.open_from_version := NEW.version;
    -- The job was written just before, in the same transaction.
    UPDATE outbox SET opened_before_version = NEW.version
    WHERE kind = 'cancel_deliveries' AND subscription = NEW.id AND opened_before = NEW.open_from
      AND opened_before_version = 0;
    RETURN NEW;
END $$;

CREATE TRIGGER herald_note_version BEFORE UPDATE ON subscriptions FOR EACH ROW
    WHEN (NEW.open_from <> OLD.open_from AND NEW.open_from_version = OLD.open_from_version)
    EXECUTE FUNCTION herald_note_version();
