"""Wire bytes to values and back. Pure: no socket, no disk, no clock."""
