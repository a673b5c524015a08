"""HTTP: devices POST what they measured to the gateway, and fetch their commands by a long poll."""
