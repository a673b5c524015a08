-- Relations between devices, by relationships that the parents' blueprints declare (cloud/model/attribute.py).
CREATE TABLE relation (
    project_id chosen_id NOT NULL,
    parent_id  bigint    NOT NULL,
    key        text      NOT NULL,
    child_id   bigint    NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (parent_id, key, child_id),
    FOREIGN KEY (project_id, parent_id) REFERENCES device (project_id, id) ON DELETE CASCADE,
    FOREIGN KEY (project_id, child_id) REFERENCES device (project_id, id) ON DELETE CASCADE
);
CREATE INDEX relation_of_child ON relation (child_id, key, parent_id);
SELECT tenant_table('relation');

-- What a blueprint is of: devices, or groups of them.
ALTER TABLE blueprint ADD COLUMN kind text NOT NULL DEFAULT 'device' CHECK (kind IN ('device', 'group'));

-- Messages that were made from others: forwarded by relations.
ALTER TABLE hop_progress ADD COLUMN derived bigint NOT NULL DEFAULT 0;
