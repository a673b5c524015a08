"""The kit of the three commands; knows no device and no data."""
