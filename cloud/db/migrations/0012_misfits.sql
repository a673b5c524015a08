-- Values that did not fit their device's blueprint and were left out of their message: the newest of each project.
-- `count`: of more than one, where a message had too many to tell each.
CREATE TABLE misfit (
    seq        bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id text    NOT NULL,
    device_id  bigint  NOT NULL,
    id         uuid    NOT NULL,
    event_time bigint  NOT NULL,
    attribute  text    NOT NULL,
    code       text    NOT NULL,
    reason     text    NOT NULL,
    value      text    NOT NULL,
    count      integer NOT NULL
);
CREATE INDEX misfit_project ON misfit (project_id, seq);
CREATE INDEX misfit_device ON misfit (project_id, device_id, seq);

-- How many there ever were.
CREATE TABLE misfit_count (
    project_id text   NOT NULL,
    device_id  bigint NOT NULL,
    attribute  text   NOT NULL,
    count      bigint NOT NULL,
    newest     bigint NOT NULL,
    PRIMARY KEY (device_id, attribute)
) WITH (fillfactor = 50);

SELECT tenant_table(name) FROM unnest(ARRAY['misfit', 'misfit_count']::regclass[]) AS tables (name);
