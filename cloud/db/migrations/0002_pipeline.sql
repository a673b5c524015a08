-- What the way of a message leaves behind. Times are Unix milliseconds.

-- What each hop has done of each source's records, and what became of them. One row a hop, so that hops never wait for
-- each other's locks. Fates are counted in the transaction of the work that they count.
CREATE TABLE hop_progress (
    source_id        bigint NOT NULL REFERENCES source (id),
    epoch            bigint NOT NULL,
    hop              text   NOT NULL,
    done             int8multirange NOT NULL DEFAULT '{}',
    accepted         bigint NOT NULL DEFAULT 0,
    decoded_records  bigint NOT NULL DEFAULT 0,
    rejected_records bigint NOT NULL DEFAULT 0,
    dead_records     bigint NOT NULL DEFAULT 0,
    decoded          bigint NOT NULL DEFAULT 0,
    stored           bigint NOT NULL DEFAULT 0,
    repeated         bigint NOT NULL DEFAULT 0,
    unresolved       bigint NOT NULL DEFAULT 0,
    rejected         bigint NOT NULL DEFAULT 0,
    stopped          bigint NOT NULL DEFAULT 0,
    dead             bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (source_id, epoch, hop)
) WITH (fillfactor = 50);

-- One row a message, never one for an attribute. `record` is the id that the message would have without its message
-- key, so that the record that carried it can be found; null where `id` says it.
CREATE TABLE history (
    project_id    text     NOT NULL,
    device_id     bigint   NOT NULL,
    event_time    bigint   NOT NULL,
    id            uuid     NOT NULL,
    received_time bigint   NOT NULL,
    time          bigint,
    flags         smallint NOT NULL,
    record        uuid,
    data          jsonb    NOT NULL,
    PRIMARY KEY (device_id, event_time, id)
) PARTITION BY RANGE (event_time);
CREATE TABLE history_default PARTITION OF history DEFAULT;

-- The ids of messages with a message key, and the event time that each had when it first came: their uniqueness does
-- not rest on the partitioned table.
CREATE TABLE message_key (
    id         uuid   PRIMARY KEY,
    project_id text   NOT NULL,
    event_time bigint NOT NULL
);

CREATE TABLE current_value (
    project_id    text   NOT NULL,
    device_id     bigint NOT NULL,
    attribute     text   NOT NULL,
    value         jsonb  NOT NULL,
    event_time    bigint NOT NULL,
    received_time bigint NOT NULL,
    id            uuid   NOT NULL,
    PRIMARY KEY (device_id, attribute)
) WITH (fillfactor = 50);

-- Messages of unknown devices. `replay_seq` numbers a row once its device is known, consecutively for each source, so that
-- a replay that is cut off and repeated is passed over by the hops behind it.
CREATE TABLE inbox (
    seq           bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id    text     NOT NULL,
    source_id     bigint   NOT NULL REFERENCES source (id),
    network_id    text     NOT NULL,
    alias_key     text     NOT NULL,
    alias         text     NOT NULL,
    id            uuid     NOT NULL,
    record        uuid     NOT NULL,
    flags         smallint NOT NULL,
    time          bigint,
    received_time bigint   NOT NULL,
    event_time    bigint   NOT NULL,
    data          bytea    NOT NULL,
    payload       bytea    NOT NULL,
    replay_seq    bigint
);
CREATE INDEX inbox_alias ON inbox (project_id, network_id, alias_key, alias, seq);
CREATE INDEX inbox_replay ON inbox (source_id, replay_seq) WHERE replay_seq IS NOT NULL;

-- Records that did not decode, with their bytes.
CREATE TABLE reject (
    seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id    text   NOT NULL,
    source_id     bigint NOT NULL REFERENCES source (id),
    epoch         bigint NOT NULL,
    record_seq    bigint NOT NULL,
    network_id    text   NOT NULL,
    alias_key     text   NOT NULL,
    alias         text   NOT NULL,
    topic         text   NOT NULL,
    code          text   NOT NULL,
    detail        text   NOT NULL,
    received_time bigint NOT NULL,
    payload       bytea  NOT NULL
);
CREATE INDEX reject_project ON reject (project_id, seq);

-- What a hop could not do for good: the batch as it came, and why.
CREATE TABLE dead_letter (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id text   NOT NULL,
    hop        text   NOT NULL,
    topic      text   NOT NULL,
    detail     text   NOT NULL,
    created    timestamptz NOT NULL DEFAULT now(),
    data       bytea  NOT NULL
);
