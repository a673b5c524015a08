-- What gateways tell beside their blocks: gaps, clock anchors, how they stand. Times are Unix milliseconds.

-- The hop `gap` is done with the records that gateways have lost, and counts them; a tail is of unknown length and
-- counts as one. When such a record is accepted after all, it is taken out again.
ALTER TABLE hop_progress
    ADD COLUMN evicted bigint NOT NULL DEFAULT 0,
    ADD COLUMN damaged bigint NOT NULL DEFAULT 0,
    ADD COLUMN tails   bigint NOT NULL DEFAULT 0;

-- Whose an epoch is: asked by people, about a device or a message.
CREATE INDEX hop_progress_epoch ON hop_progress (epoch);

-- The records of the hop `gap`, with what is known of each loss. `end_seq` = `first_seq` for a tail.
CREATE TABLE gap (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_id  bigint NOT NULL REFERENCES source (id),
    epoch      bigint NOT NULL,
    first_seq  bigint NOT NULL,
    end_seq    bigint NOT NULL,
    kind       text   NOT NULL CHECK (kind IN ('evicted', 'damaged', 'tail')),
    oldest_ms  bigint NOT NULL,
    newest_ms  bigint NOT NULL,
    noticed_ms bigint NOT NULL,
    size_bytes bigint NOT NULL,
    created    timestamptz NOT NULL DEFAULT now(),
    CHECK (CASE WHEN kind = 'tail' THEN end_seq = first_seq ELSE end_seq > first_seq END)
);
CREATE UNIQUE INDEX gap_place ON gap (source_id, epoch, first_seq, (kind = 'tail'));

-- What moments of boot clocks were in true time. Never changed: event times derive from it.
CREATE TABLE clock_anchor (
    source_id bigint NOT NULL REFERENCES source (id),
    boot      bigint NOT NULL,
    boot_ms   bigint NOT NULL,
    wall_ms   bigint NOT NULL,
    error_ms  bigint NOT NULL,
    origin    text   NOT NULL,
    PRIMARY KEY (source_id, boot, boot_ms)
);

-- By how much the time of a message may be off that was found by a clock anchor; null: it was not.
ALTER TABLE history ADD COLUMN time_error_ms integer;
ALTER TABLE inbox ADD COLUMN time_error_ms integer;

-- A message by its id, asked by people. Ids come nearly in order, so a summary of each few pages finds it at no cost for
-- the writer.
CREATE INDEX history_message ON history USING brin (id uuid_minmax_multi_ops, record uuid_minmax_multi_ops)
    WITH (pages_per_range = 32, autosummarize = on);

-- `standing`: the gateway's last word on where its records are, as JSON, and when it came. `complete_until`: everything
-- that it received before is in the databases, or a gap.
ALTER TABLE gateway
    ADD COLUMN standing jsonb,
    ADD COLUMN standing_at timestamptz,
    ADD COLUMN complete_until bigint;

-- Which records a dead letter is about; null where it is older than these columns.
ALTER TABLE dead_letter
    ADD COLUMN source_id bigint,
    ADD COLUMN epoch bigint,
    ADD COLUMN records int8multirange;
