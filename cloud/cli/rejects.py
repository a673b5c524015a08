"""`tidegate-cloud rejects`: records that did not decode."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from cloud.cli.options import AsJson, ConfigFile, DataDir, load_config
from cloud.cli.times import time_ms
from tidegate import loop
from tidegate.console import number_text, print_json, progress

if TYPE_CHECKING:
    from cloud.model.rejected import RejectReplay

STILL_S: Final = 10.0
"""A replay that has not moved for so long waits for the service that does it."""

app = typer.Typer(help="Records that did not decode.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Records that did not decode."""


@app.command()
def replay(
    network: Annotated[str | None, typer.Option(help="Only records of this network.")] = None,
    code: Annotated[str | None, typer.Option(help="Only with this reason's code.")] = None,
    since: Annotated[str | None, typer.Option(help="Received then or later: RFC 3339 or Unix milliseconds.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before.")] = None,
    project: Annotated[str | None, typer.Option(help="Needed where there are several.")] = None,
    wait: Annotated[bool, typer.Option(help="Until it is finished, with its progress.")] = True,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Decode rejects again, with the codecs that their networks have now; each is stored once, however often."""
    since_ms, until_ms = (None if text is None else time_ms(text) for text in (since, until))
    config = load_config(config_file, data_dir)
    from cloud.app import replay_rejects
    from cloud.model.rejected import RejectFilter

    wanted = RejectFilter(network, code, since_ms, until_ms)
    found: RejectReplay | None = None

    async def main(stop: asyncio.Event) -> None:
        nonlocal found
        with progress("decoded again", 0) as shown:
            moved_s = asyncio.get_running_loop().time()
            last = -1

            def told(state: RejectReplay) -> None:
                nonlocal moved_s, last
                done = state.decoded + state.failed
                shown.reach(done, state.total)
                now_s = asyncio.get_running_loop().time()
                if done != last:
                    moved_s, last = now_s, done
                elif now_s - moved_s > STILL_S:
                    print("it waits: the service `replay` does it; tidegate-cloud run replay", file=sys.stderr)
                    moved_s = now_s

            found = await replay_rejects(config, project, wanted, told, wait=wait)

    loop.run(main)
    assert found is not None, "main ends with one, or raises"
    if as_json:
        print_json(msgspec.structs.asdict(found))
        return
    state = "finished" if found.finished_at is not None else f"begun, as number {found.number}"
    counts = f"{number_text(found.decoded)} decoded, {number_text(found.failed)} failed again"
    if not found.total:
        print("no reject fits: GET /api/v1/rejects lists what there is")
        return
    why = "; GET /api/v1/rejects says why" if found.failed else ""
    print(f"{state}: of {number_text(found.total)} records {counts}{why}")
