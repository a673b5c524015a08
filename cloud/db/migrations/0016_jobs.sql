-- Work that takes longer than a request: what is asked for, how far it is, what came of it. `position` is where it goes on,
-- as its kind counts; `turn_at`: when it had its last turn, so that long jobs let short ones by.
CREATE TABLE job (
    number       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id   text    NOT NULL,
    kind         text    NOT NULL,
    asked        jsonb   NOT NULL DEFAULT '{}',
    state        text    NOT NULL DEFAULT 'waiting'
                 CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    cancel_asked boolean NOT NULL DEFAULT false,
    position     bigint  NOT NULL DEFAULT 0,
    done         bigint  NOT NULL DEFAULT 0,
    total        bigint  NOT NULL DEFAULT 0,
    result       jsonb   NOT NULL DEFAULT '{}',
    error        text,
    turn_at      timestamptz NOT NULL DEFAULT now(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    finished_at  timestamptz,
    CHECK ((finished_at IS NULL) = (state IN ('waiting', 'running')))
);
CREATE INDEX job_of_project ON job (project_id, number);
CREATE INDEX job_waiting ON job (turn_at) WHERE finished_at IS NULL;
SELECT tenant_table('job');
