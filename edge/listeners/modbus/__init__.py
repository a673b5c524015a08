"""Modbus: units that are asked for their registers, over TCP or a serial line."""
