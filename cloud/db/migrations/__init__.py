"""The schema, as numbered SQL files: `NNNN_name.sql`. A file that has been released is never changed, only followed."""
