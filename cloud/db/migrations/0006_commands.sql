-- What goes down to devices, and whether they are there. Times are Unix milliseconds.

-- `state` and `reason` as in cloud/model/command.py. `gateway_id`: which gateway it goes by; null: none has seen the device
-- yet. `held_by`: the last gateway that said that it has it. `told_session`, `told_at`: the connection that it was last put on, so that it is told again on the next one.
CREATE TABLE command (
    id              uuid      PRIMARY KEY,
    seq             bigint    GENERATED ALWAYS AS IDENTITY,
    project_id      chosen_id NOT NULL,
    device_id       bigint    NOT NULL,
    name            text      NOT NULL,
    payload         bytea     NOT NULL,
    deadline        bigint    NOT NULL,
    created         bigint    NOT NULL,
    idempotency_key text,
    gateway_id      chosen_id,
    held_by         chosen_id,
    told_session    uuid,
    told_at         bigint,
    state           text      NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'sent', 'delivered', 'acknowledged', 'failed', 'expired')),
    reason          text      NOT NULL DEFAULT '',
    state_time      bigint    NOT NULL,
    answer          bytea,
    answer_time     bigint,
    FOREIGN KEY (project_id, device_id) REFERENCES device (project_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX command_key ON command (device_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX command_of_device ON command (project_id, device_id, seq);
CREATE INDEX command_to_tell ON command (project_id, gateway_id, seq)
    WHERE state IN ('pending', 'sent') AND held_by IS DISTINCT FROM gateway_id;
CREATE INDEX command_open ON command (deadline) WHERE state IN ('pending', 'sent');

-- `link_session`: the connection that speaks for the gateway now, the last one that was opened; null: there is none.
ALTER TABLE gateway ADD COLUMN link_session uuid;

-- Whether a device is there, under the name that its listener knows it by: the last that a gateway said of it.
-- `record`: the record that said it.
CREATE TABLE presence (
    project_id text    NOT NULL,
    network_id text    NOT NULL,
    alias_key  text    NOT NULL,
    alias      text    NOT NULL,
    source_id  bigint  NOT NULL REFERENCES source (id),
    listener   text    NOT NULL,
    online     boolean NOT NULL,
    reason     text    NOT NULL,
    since      bigint  NOT NULL,
    record     uuid    NOT NULL,
    PRIMARY KEY (project_id, network_id, alias_key, alias)
);
CREATE INDEX presence_of_source ON presence (source_id, listener) WHERE online;

-- How it came to that: one row a change.
CREATE TABLE device_event (
    seq        bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id text    NOT NULL,
    network_id text    NOT NULL,
    alias_key  text    NOT NULL,
    alias      text    NOT NULL,
    source_id  bigint  NOT NULL REFERENCES source (id),
    listener   text    NOT NULL,
    online     boolean NOT NULL,
    reason     text    NOT NULL,
    time       bigint  NOT NULL,
    record     uuid    NOT NULL
);
CREATE INDEX device_event_of_project ON device_event (project_id, seq);
CREATE INDEX device_event_of_name ON device_event (project_id, network_id, alias_key, alias, seq);

-- What a device is to be like. `command_id`: the last command that carried it.
CREATE TABLE twin (
    project_id chosen_id NOT NULL,
    device_id  bigint    NOT NULL PRIMARY KEY,
    desired    jsonb     NOT NULL,
    version    bigint    NOT NULL,
    changed    bigint    NOT NULL,
    command_id uuid,
    FOREIGN KEY (project_id, device_id) REFERENCES device (project_id, id) ON DELETE CASCADE
);
