"""Listeners: device traffic in, records out to the bus. One file a protocol; all of them share `collector.py`."""
