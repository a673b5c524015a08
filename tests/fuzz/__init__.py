"""Any bytes from a device: no crash, no hang, no growth, and nobody else notices.

house.py lists the targets: *parsers*, which take bytes and do no I/O, and *listeners* of a gateway that runs. `make
test` gives each of them 2,000 cases; `make fuzz MINUTES=n` goes on for longer, guided by coverage. An input that broke
something is kept in regressions/, and tried again each time.
"""
