-- History summed up by quarter hours, so that long ranges are quick (cloud/db/rollups.py). Days are counted from
-- 1970-01-01, in UTC.

-- Of which days of which devices all is summed up.
CREATE TABLE rollup_day (
    project_id text    NOT NULL,
    device_id  bigint  NOT NULL,
    day        integer NOT NULL,
    PRIMARY KEY (device_id, day)
);

-- One row for what a device had under one name on one day: the quarter hours that have points (0 to 95), and of each how many
-- points, how many of them numbers, sum and extremes of the numbers (null: there are none), the first and last value as JSON.
CREATE TABLE rollup (
    project_id text       NOT NULL,
    device_id  bigint     NOT NULL,
    name       text       NOT NULL,
    day        integer    NOT NULL,
    quarters   smallint[] NOT NULL,
    points     integer[]  NOT NULL,
    numbers    integer[]  NOT NULL,
    sums       float8[]   NOT NULL,
    lows       float8[]   NOT NULL,
    highs      float8[]   NOT NULL,
    firsts     text[]     NOT NULL,
    lasts      text[]     NOT NULL,
    PRIMARY KEY (device_id, name, day)
);

-- Days whose rows changed after they had ended: their rollups are not true until they are made again. A row for each
-- change, never one for several: who makes a rollup takes away those only that it saw together with the change.
CREATE TABLE rollup_late (
    number     bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id text    NOT NULL,
    device_id  bigint  NOT NULL,
    day        integer NOT NULL
);
CREATE INDEX rollup_late_day ON rollup_late (device_id, day);

-- Up to which day, exclusively, all devices' days of a week of history are summed up, but for those that changed since.
CREATE TABLE rollup_week (
    week integer PRIMARY KEY,
    done integer NOT NULL
);

SELECT tenant_table(name) FROM unnest(ARRAY['rollup_day', 'rollup', 'rollup_late']::regclass[]) AS tables (name);
