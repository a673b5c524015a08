-- Who uses it, and what is known of networks, blueprints and devices. Every row names its project.

-- What people and gateways may be called: it stands in paths, topics and file names.
CREATE DOMAIN chosen_id AS text CHECK (VALUE ~ '^[a-z0-9][a-z0-9_-]{0,62}$');

CREATE TABLE server_secret (
    name       text  PRIMARY KEY,
    secret     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- `revision` counts the changes of networks, blueprints and devices. A change takes the row first, so that revisions
-- commit in order. 0 is what an empty replica holds, so a project starts at 1.
CREATE TABLE project (
    id         chosen_id PRIMARY KEY,
    name       text   NOT NULL,
    revision   bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- `session_version` is written into session tokens: a new password ends the sessions that the old one opened.
CREATE TABLE app_user (
    id              bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text    NOT NULL UNIQUE,
    password_argon2 text    NOT NULL,
    admin           boolean NOT NULL DEFAULT false,
    session_version integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE user_project (
    user_id    bigint    NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
    project_id chosen_id NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    role       text      NOT NULL CHECK (role IN ('editor', 'viewer')),
    PRIMARY KEY (user_id, project_id)
);

CREATE TABLE system (
    project_id chosen_id NOT NULL REFERENCES project (id),
    id         chosen_id NOT NULL,
    name       text      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id)
);

-- `secret_sha256`: hexadecimal, the newest first; two while one is being rotated.
CREATE TABLE network (
    project_id    chosen_id NOT NULL REFERENCES project (id),
    id            chosen_id NOT NULL,
    name          text      NOT NULL,
    alias_key     text      NOT NULL,
    codec         jsonb     NOT NULL,
    secret_sha256 text[]    NOT NULL DEFAULT '{}',
    revision      bigint    NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id)
);

CREATE TABLE blueprint (
    project_id chosen_id NOT NULL REFERENCES project (id),
    id         chosen_id NOT NULL,
    name       text      NOT NULL,
    attributes jsonb     NOT NULL DEFAULT '{}',
    route      jsonb,
    revision   bigint    NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id)
);

CREATE TABLE device (
    id            bigint    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id    chosen_id NOT NULL REFERENCES project (id),
    system_id     chosen_id NOT NULL,
    blueprint_id  chosen_id NOT NULL,
    name          text      NOT NULL,
    route         jsonb,
    secret_sha256 text[]    NOT NULL DEFAULT '{}',
    revision      bigint    NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, id),
    CONSTRAINT device_system FOREIGN KEY (project_id, system_id) REFERENCES system (project_id, id),
    CONSTRAINT device_blueprint FOREIGN KEY (project_id, blueprint_id) REFERENCES blueprint (project_id, id)
);
CREATE INDEX device_revision ON device (project_id, revision);
CREATE INDEX device_by_system ON device (project_id, system_id);
CREATE INDEX device_by_blueprint ON device (project_id, blueprint_id);
CREATE INDEX device_name ON device (project_id, lower(name) text_pattern_ops);

-- `place` keeps the order in which a device's aliases were given.
CREATE TABLE alias (
    project_id chosen_id NOT NULL,
    network_id chosen_id NOT NULL,
    alias_key  text      NOT NULL,
    alias      text      NOT NULL,
    device_id  bigint    NOT NULL,
    place      smallint  NOT NULL,
    PRIMARY KEY (project_id, network_id, alias_key, alias),
    CONSTRAINT alias_network FOREIGN KEY (project_id, network_id) REFERENCES network (project_id, id),
    CONSTRAINT alias_device FOREIGN KEY (project_id, device_id) REFERENCES device (project_id, id) ON DELETE CASCADE
);
CREATE INDEX alias_of_device ON alias (device_id, place);
CREATE INDEX alias_text ON alias (project_id, lower(alias) text_pattern_ops);

-- What was deleted, so that replicas can follow.
CREATE TABLE tombstone (
    project_id chosen_id NOT NULL REFERENCES project (id),
    kind       text      NOT NULL CHECK (kind IN ('network', 'blueprint', 'device')),
    ref        text      NOT NULL,
    revision   bigint    NOT NULL,
    PRIMARY KEY (project_id, kind, ref)
);
CREATE INDEX tombstone_revision ON tombstone (project_id, revision);

-- `public_keys`: Ed25519, 32 bytes as base64url without padding, the newest first.
CREATE TABLE gateway (
    project_id   chosen_id NOT NULL REFERENCES project (id),
    id           chosen_id NOT NULL,
    name         text      NOT NULL,
    public_keys  text[]    NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz,
    PRIMARY KEY (project_id, id)
);

-- `used_by`: the public key that the token enrolled.
CREATE TABLE enrolment_token (
    sha256     text      PRIMARY KEY,
    project_id chosen_id NOT NULL,
    gateway_id chosen_id NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    used_by    text,
    FOREIGN KEY (project_id, gateway_id) REFERENCES gateway (project_id, id) ON DELETE CASCADE
);
CREATE INDEX enrolment_token_of_gateway ON enrolment_token (project_id, gateway_id);

-- What record ranges are kept of: a gateway, a project's REST server, a project's inbox.
CREATE TABLE source (
    id         bigint    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id chosen_id NOT NULL REFERENCES project (id),
    kind       text      NOT NULL CHECK (kind IN ('gateway', 'rest', 'inbox')),
    gateway_id chosen_id,
    UNIQUE NULLS NOT DISTINCT (project_id, kind, gateway_id),
    CHECK ((kind = 'gateway') = (gateway_id IS NOT NULL)),
    FOREIGN KEY (project_id, gateway_id) REFERENCES gateway (project_id, id)
);
