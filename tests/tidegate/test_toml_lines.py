from __future__ import annotations

import tomllib

import pytest

from tidegate.toml_lines import line_of

TEXT = """\
name = "quay" # not [a.table]

[log]
max_bytes = 1
[ log . deeper ]
key = 2

[[mqtt]]
name = "a"
port = 1
[mqtt.tls]
cert = "x"
[[mqtt]]
name = "b"
"port" = 2
list = [{name = "inline"}]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("name", 1),
        ("log", 3),
        ("log.max_bytes", 4),
        ("log.deeper.key", 6),
        ("log.missing", 3),
        ("mqtt[0]", 8),
        ("mqtt[0].port", 10),
        ("mqtt[0].tls.cert", 12),
        ("mqtt[1].port", 15),
        ("mqtt[1].list[0].name", 16),
        ("mqtt[1].network", 13),
        ("nothing", None),
        ("", None),
    ],
)
def test_a_setting_is_found_or_what_it_lies_within(path: str, line: int | None) -> None:
    tomllib.loads(TEXT)
    assert line_of(TEXT, path) == line
