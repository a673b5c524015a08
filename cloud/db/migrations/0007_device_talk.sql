-- Whether devices of a network may subscribe to what others of them publish.
ALTER TABLE network ADD COLUMN device_talk boolean NOT NULL DEFAULT false;
