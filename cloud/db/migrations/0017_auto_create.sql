-- Networks whose unknown devices are created by themselves: where, of which blueprint, called how, and how many devices the
-- network may come to that way.
CREATE TABLE auto_create (
    project_id   chosen_id NOT NULL,
    network_id   chosen_id NOT NULL,
    system_id    chosen_id NOT NULL,
    blueprint_id chosen_id NOT NULL,
    name         text      NOT NULL,
    devices_max  integer   NOT NULL,
    PRIMARY KEY (project_id, network_id),
    FOREIGN KEY (project_id, network_id) REFERENCES network (project_id, id) ON DELETE CASCADE,
    CONSTRAINT auto_create_system FOREIGN KEY (project_id, system_id) REFERENCES system (project_id, id),
    CONSTRAINT auto_create_blueprint FOREIGN KEY (project_id, blueprint_id) REFERENCES blueprint (project_id, id)
);
SELECT tenant_table('auto_create');
SELECT audited('auto_create', 'auto_create', '{network_id}', '{project_id}');
