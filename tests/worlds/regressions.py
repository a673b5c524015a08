"""Seeds whose worlds broke a law once: always run. Each beside what was wrong.

They mean something only as long as their worlds draw the same: compare `--trace` before and after a change of worlds.
"""

from __future__ import annotations

from typing import Final

SEEDS: Final[dict[int, str]] = {
    1236: "a block that was evicted before its turn was sent as live",
    1997: "the same, in another world",
    2229: "a torn tail was cut off before its gap was durable, and the process killed in between",
    2112: "a block whose write had failed was read, where a bit had flipped in the header that told where to end",
}
