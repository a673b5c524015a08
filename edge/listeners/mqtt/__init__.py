"""MQTT 3.1.1 and 5: devices' clients connect to the gateway. `listener.py` is where it begins."""
