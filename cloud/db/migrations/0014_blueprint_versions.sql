-- What a blueprint was before each of its changes. `changed_at`: when that version came to be.
ALTER TABLE blueprint
    ADD COLUMN version integer NOT NULL DEFAULT 1,
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE blueprint_version (
    project_id   chosen_id NOT NULL,
    blueprint_id chosen_id NOT NULL,
    version      integer   NOT NULL,
    name         text      NOT NULL,
    attributes   jsonb     NOT NULL,
    route        jsonb,
    changed_at   timestamptz NOT NULL,
    PRIMARY KEY (project_id, blueprint_id, version),
    FOREIGN KEY (project_id, blueprint_id) REFERENCES blueprint (project_id, id) ON DELETE CASCADE
);
SELECT tenant_table('blueprint_version');
