-- What its protocol said beside a rejected record's payload (protocols/metadata.py); empty: nothing.
ALTER TABLE reject ADD COLUMN metadata bytea NOT NULL DEFAULT '';
