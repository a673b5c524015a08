-- Who may do what: roles in projects and systems, sessions, API keys; and what became of it: the audit trail, and the answers
-- of requests that may come twice.

-- Roles of a project's own, beside viewer, operator, editor and owner.
CREATE TABLE project_role (
    project_id  chosen_id NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    id          chosen_id NOT NULL CHECK (id NOT IN ('viewer', 'operator', 'editor', 'owner')),
    name        text      NOT NULL,
    permissions text[]    NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id)
);

-- `system_id` null: in the whole project.
CREATE TABLE user_grant (
    user_id    bigint    NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
    project_id chosen_id NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    system_id  chosen_id,
    role       chosen_id NOT NULL,
    UNIQUE NULLS NOT DISTINCT (user_id, project_id, system_id),
    CONSTRAINT grant_system FOREIGN KEY (project_id, system_id) REFERENCES system (project_id, id) ON DELETE CASCADE
);
CREATE INDEX user_grant_of_project ON user_grant (project_id);
INSERT INTO user_grant (user_id, project_id, role) SELECT user_id, project_id, role FROM user_project;
DROP TABLE user_project;

-- One signing in. Its refresh token is given out anew with each use; one that was used before ends the session, as somebody
-- else must have it, too.
CREATE TABLE user_session (
    id             uuid   PRIMARY KEY,
    user_id        bigint NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
    refresh_sha256 text   NOT NULL,
    used_sha256    text,
    expires_at     timestamptz NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX user_session_of_user ON user_session (user_id);

-- `system_ids` null: in the whole project. `by`: who made it.
CREATE TABLE api_key (
    id           uuid      PRIMARY KEY,
    project_id   chosen_id NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    name         text      NOT NULL,
    sha256       text      NOT NULL,
    permissions  text[]    NOT NULL,
    system_ids   text[],
    by           text      NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    UNIQUE (project_id, name)
);

-- Commands were done once by keys of their own, before all requests could be.
DROP INDEX command_key;
ALTER TABLE command DROP COLUMN idempotency_key;

-- Every change of what is configured: `before` and `after` have what differs. `project_id` null: of the server.
CREATE TABLE audit (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id chosen_id,
    at         timestamptz NOT NULL DEFAULT now(),
    actor      text   NOT NULL,
    action     text   NOT NULL CHECK (action IN ('created', 'changed', 'deleted')),
    kind       text   NOT NULL,
    ref        text   NOT NULL,
    before     jsonb,
    after      jsonb
);
CREATE INDEX audit_of_project ON audit (project_id, seq);
CREATE INDEX audit_of_object ON audit (project_id, kind, ref, seq);

-- Requests that carried an Idempotency-Key and were done. `body` null: the answer is not kept, as it holds a secret, or as the
-- process ended before it was.
CREATE TABLE idempotency (
    project_id     chosen_id NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    actor          text      NOT NULL,
    key            text      NOT NULL,
    request_sha256 text      NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    status         smallint,
    headers        jsonb,
    body           bytea,
    PRIMARY KEY (project_id, actor, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

SELECT tenant_table(name)
FROM unnest(ARRAY['project_role', 'user_grant', 'api_key', 'audit', 'idempotency']::regclass[]) AS tables (name);
REVOKE INSERT, UPDATE, DELETE ON audit FROM tidegate_api;  -- the trail is written by the trigger below only
REVOKE INSERT, UPDATE, DELETE ON user_grant FROM tidegate_api;  -- users are of no project

-- A row as the audit trail shows it: without the columns that are of no interest to it; of secrets' hashes, the first digits.
CREATE FUNCTION audited_row(held jsonb, left_out text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, CASE
        WHEN key LIKE '%sha256' AND jsonb_typeof(value) = 'array'
            THEN (SELECT coalesce(jsonb_agg(left(one, 8)), '[]') FROM jsonb_array_elements_text(value) one)
        WHEN key LIKE '%sha256' THEN to_jsonb(left(value #>> '{}', 8))
        ELSE value END), '{}')
    FROM jsonb_each(held) WHERE NOT key = ANY (left_out) AND key <> 'password_argon2'
$$;

-- The trigger of audited tables. Arguments: what a row is called, the columns that name it, those that are left out.
CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    held jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END);
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN audited_row(to_jsonb(OLD), TG_ARGV[2]::text[]) END;
    is_now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN audited_row(to_jsonb(NEW), TG_ARGV[2]::text[]) END;
    whole jsonb := was;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF was = is_now THEN
            RETURN NULL;
        END IF;
        SELECT jsonb_object_agg(key, value) INTO was
            FROM jsonb_each(whole) WHERE is_now -> key IS DISTINCT FROM value;
        SELECT jsonb_object_agg(key, value) INTO is_now
            FROM jsonb_each(is_now) WHERE whole -> key IS DISTINCT FROM value;
    END IF;
    INSERT INTO audit (project_id, actor, action, kind, ref, before, after) VALUES (
        CASE WHEN TG_TABLE_NAME = 'project' THEN held ->> 'id' ELSE held ->> 'project_id' END,
        coalesce(nullif(current_setting('tidegate.actor', true), ''), 'tidegate'),
        CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END,
        TG_ARGV[0],
        (SELECT string_agg(held ->> key, ':' ORDER BY place)
         FROM unnest(TG_ARGV[1]::text[]) WITH ORDINALITY AS named (key, place)),
        was,
        is_now
    );
    RETURN NULL;
END $$;

-- Keeps a trail of a table's changes. `kind`: what its rows are called; `ref`: the columns that name one; `left_out`: those
-- whose changes are no changes of what somebody wants.
CREATE FUNCTION audited(name regclass, kind text, ref text[], left_out text[] DEFAULT '{}')
RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE format('CREATE TRIGGER audited AFTER INSERT OR DELETE OR UPDATE OF %s ON %s FOR EACH ROW '
                   'EXECUTE FUNCTION audit_row(%L, %L, %L)',
        (SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
         WHERE attrelid = name AND attnum > 0 AND NOT attisdropped AND NOT attname = ANY (left_out)),
        name, kind, ref, left_out);
END $$;

SELECT audited('project', 'project', '{id}', '{revision,created_at}');
SELECT audited('system', 'system', '{id}', '{project_id,created_at}');
SELECT audited('network', 'network', '{id}', '{project_id,revision,created_at}');
SELECT audited('blueprint', 'blueprint', '{id}', '{project_id,revision,created_at,changed_at}');
SELECT audited('retention', 'retention', '{project_id}', '{project_id,revision}');
SELECT audited('device', 'device', '{id}', '{project_id,revision,created_at}');
SELECT audited('alias', 'alias', '{network_id,alias_key,alias}', '{project_id,place}');
SELECT audited('gateway', 'gateway', '{id}',
    '{project_id,created_at,last_seen_at,standing,standing_at,complete_until,link_session}');
SELECT audited('enrolment_token', 'enrolment_token', '{gateway_id}', '{project_id,created_at}');
SELECT audited('gateway_configuration', 'gateway_configuration', '{gateway_id}',
    '{project_id,put_at,told_at,refused,remedy,listeners}');
SELECT audited('twin', 'twin', '{device_id}', '{project_id,version,changed,command_id}');
SELECT audited('command', 'command', '{device_id,id}',
    '{project_id,seq,payload,created,gateway_id,held_by,told_session,told_at,state,reason,state_time,answer,answer_time}');
SELECT audited('reject_replay', 'reject_replay', '{number}', '{project_id,position,total,decoded,failed}');
SELECT audited('project_role', 'role', '{id}', '{project_id,created_at}');
SELECT audited('user_grant', 'access', '{user_id}', '{project_id}');
SELECT audited('app_user', 'user', '{name}', '{created_at}');
SELECT audited('api_key', 'api_key', '{name}', '{project_id,created_at,last_used_at}');
