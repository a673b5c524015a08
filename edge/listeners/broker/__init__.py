"""An existing MQTT broker as a source: what it delivers is acknowledged to it once it is on disk."""
