"""MQTT 3.1.1 (OASIS Standard, 29 October 2014, with errata 01), the server's side, sans-IO.

`packets.py`: values to bytes and back; `topics.py`: names and filters; `session.py`: one connection's bytes in, columns
of published payloads and bytes to write out. Clauses in texts, such as [MQTT-3.1.0-1], are the standard's own numbers.
"""
