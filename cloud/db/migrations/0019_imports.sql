-- Files of past telemetry, in chunks that end with a line; `head`: the first line. A job reads them chunk by chunk.
CREATE TABLE import_file (
    id         bigint    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id chosen_id NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    name       text      NOT NULL,
    size_bytes bigint    NOT NULL,
    lines      bigint    NOT NULL,
    head       bytea     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX import_file_of_project ON import_file (project_id, id);

CREATE TABLE import_chunk (
    file_id    bigint  NOT NULL REFERENCES import_file (id) ON DELETE CASCADE,
    number     integer NOT NULL,
    first_line bigint  NOT NULL,
    data       bytea   NOT NULL,
    PRIMARY KEY (file_id, number)
);

-- Lines that a job could not read, the first of them.
CREATE TABLE import_problem (
    project_id text   NOT NULL,
    job        bigint NOT NULL REFERENCES job (number) ON DELETE CASCADE,
    line       bigint NOT NULL,
    detail     text   NOT NULL,
    text       text   NOT NULL,
    PRIMARY KEY (job, line)
);
SELECT tenant_table(name) FROM unnest(ARRAY['import_file', 'import_problem']::regclass[]) AS tables (name);
SELECT tenant_table('import_chunk', 'file_id IN (SELECT id FROM import_file)');
