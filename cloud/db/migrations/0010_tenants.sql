-- The API works on a project's rows as a role that sees no other project's, whatever a statement asks for. Which project
-- that is, each connection says by the setting `tidegate.project`. Services own the tables and see all rows.
DO $$ BEGIN
    CREATE ROLE tidegate_api NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN  -- made for another database of this server
    NULL;
END $$;
DO $$ BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT tidegate_api TO %I', current_user);
    END IF;
END $$;

-- Lets the role at those rows of a table that are its project's: every table with rows of projects is given to it, in the
-- migration that makes it. `mine`: which rows are, where `project_id` does not say it.
CREATE FUNCTION tenant_table(name regclass, mine text DEFAULT 'project_id = current_setting(''tidegate.project'', true)')
RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY tenant ON %s TO tidegate_api USING (%s)', name, mine);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO tidegate_api', name);
END $$;

SELECT tenant_table('project', 'id = current_setting(''tidegate.project'', true)');
SELECT tenant_table(name) FROM unnest(ARRAY[
    'system', 'network', 'blueprint', 'device', 'alias', 'tombstone', 'gateway', 'enrolment_token', 'source', 'history',
    'message_key', 'current_value', 'inbox', 'reject', 'dead_letter', 'reject_replay', 'command', 'presence',
    'device_event', 'twin', 'gateway_configuration'
]::regclass[]) AS tables (name);
-- The project of these is their source's, whose own policy holds inside of this one.
SELECT tenant_table(name, 'source_id IN (SELECT id FROM source)')
FROM unnest(ARRAY['hop_progress', 'gap', 'clock_anchor']::regclass[]) AS tables (name);
