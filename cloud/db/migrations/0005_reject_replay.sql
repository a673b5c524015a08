-- Rejects are decoded again after their codec was mended. What that needs of a record beside its bytes: the listener's
-- hint, the clock that stamped it (null: it was rejected before these columns), and whether it came late.
ALTER TABLE reject
    ADD COLUMN codec text NOT NULL DEFAULT '',
    ADD COLUMN clock_boot bigint,
    ADD COLUMN clock_offset_ms bigint,
    ADD COLUMN clock_state smallint,
    ADD COLUMN late boolean NOT NULL DEFAULT false;
CREATE INDEX reject_network ON reject (project_id, network_id, seq);

-- Somebody wants the rejects of a project up to number `through_seq` decoded again: all of them, or those of a network,
-- a code, a time of reception (Unix milliseconds). `position`: those up to this number have had their turn.
CREATE TABLE reject_replay (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id  text   NOT NULL,
    network_id  text,
    code        text,
    since_ms    bigint,
    until_ms    bigint,
    through_seq bigint NOT NULL,
    position    bigint NOT NULL DEFAULT 0,
    total       bigint NOT NULL,
    decoded     bigint NOT NULL DEFAULT 0,
    failed      bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX reject_replay_project ON reject_replay (project_id, number);
CREATE INDEX reject_replay_waiting ON reject_replay (number) WHERE finished_at IS NULL;
