-- The listeners that a gateway is to have in place of those of its file, and what became of them.
-- `toml`: null where they were taken back. `refused`: null: it has not said anything yet; empty: they are in force.
CREATE TABLE gateway_configuration (
    project_id chosen_id   NOT NULL,
    gateway_id chosen_id   NOT NULL,
    revision   bigint      NOT NULL,
    toml       text,
    put_at     timestamptz NOT NULL DEFAULT now(),
    told_at    timestamptz,
    refused    text,
    remedy     text        NOT NULL DEFAULT '',
    listeners  jsonb       NOT NULL DEFAULT '[]',
    PRIMARY KEY (project_id, gateway_id),
    FOREIGN KEY (project_id, gateway_id) REFERENCES gateway (project_id, id) ON DELETE CASCADE
);
