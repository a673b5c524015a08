"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.config import ENV_PREFIX, EdgeConfig
from tidegate.config import load

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; without one, the environment and the defaults.")
]
DataDir = Annotated[Path | None, typer.Option("--data", help="The gateway's data folder (data_dir).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_config(file: Path | None, data_dir: Path | None) -> EdgeConfig:
    """Raises ConfigError, a UserError."""
    config = load(EdgeConfig, file=file, env_prefix=ENV_PREFIX)
    return config if data_dir is None else msgspec.structs.replace(config, data_dir=data_dir)


def start_command(file: Path | None, data_dir: Path | None) -> str:
    """The command that starts the gateway that these options mean."""
    words = ["tidegate-edge run"]
    words += [f"--config {file}"] if file is not None else []
    words += [f"--data {data_dir}"] if data_dir is not None else []
    return " ".join(words)


def elsewhere(file: Path | None, data_dir: Path | None) -> str:
    """What to give where nothing was found by the defaults; empty if these options say where to look."""
    if file is not None or data_dir is not None:
        return ""
    return "if its configuration lies elsewhere: --config FILE (the demo: --config .run/gateway.toml)"
