-- Rollups that stay when their rows go. `kept`: the day's rows are gone, or some of them, so its rollup is the last word.
ALTER TABLE rollup_day ADD COLUMN kept boolean NOT NULL DEFAULT false;
CREATE INDEX rollup_day_kept ON rollup_day (project_id, day) WHERE kept;
