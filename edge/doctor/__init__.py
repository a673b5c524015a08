"""`tidegate-edge doctor`: one file a check, each of which says what it saw and what to do about it."""
