-- How long what is kept, and what the curator did about it.

-- `rules`: cloud/model/retention.py. A project without a row keeps everything.
CREATE TABLE retention (
    project_id chosen_id PRIMARY KEY REFERENCES project (id) ON DELETE CASCADE,
    rules      jsonb  NOT NULL,
    revision   bigint NOT NULL
);
SELECT tenant_table('retention');

-- Of one run, for one project (cloud/model/curation.py). `started_at` null: somebody asked for it, and it waits.
CREATE TABLE curator_report (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id  chosen_id NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    dry_run     boolean NOT NULL DEFAULT false,
    asked_at    timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    lines       jsonb   NOT NULL DEFAULT '[]',
    sizes       jsonb   NOT NULL DEFAULT '[]',
    lock_waits  integer NOT NULL DEFAULT 0,
    problem     text    NOT NULL DEFAULT ''
);
CREATE INDEX curator_report_project ON curator_report (project_id, number);
CREATE UNIQUE INDEX curator_report_open ON curator_report (project_id, dry_run) WHERE finished_at IS NULL;
SELECT tenant_table('curator_report');

-- When the last run by schedule ended. One row at most.
CREATE TABLE curator_schedule (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    finished_at timestamptz NOT NULL
);

-- What gateways say of time may be wrong by years: what is kept for so many days goes by when it came here.
ALTER TABLE device_event ADD COLUMN arrived timestamptz NOT NULL DEFAULT now();
ALTER TABLE reject ADD COLUMN arrived timestamptz NOT NULL DEFAULT now();
ALTER TABLE inbox ADD COLUMN arrived timestamptz NOT NULL DEFAULT now();
ALTER TABLE misfit ADD COLUMN arrived timestamptz NOT NULL DEFAULT now();
CREATE INDEX inbox_project ON inbox (project_id, seq);
CREATE INDEX dead_letter_project ON dead_letter (project_id, seq);
