"""Options that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cloud.config import ENV_PREFIX, CloudConfig
from tidegate import logs
from tidegate.config import load

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; without one, the environment and the defaults.")
]
DataDir = Annotated[Path | None, typer.Option("--data", help="Folder of the embedded engines (data_dir).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_config(file: Path | None, data_dir: Path | None) -> CloudConfig:
    """Raises ConfigError, a UserError."""
    config = load(CloudConfig, file=file, env_prefix=ENV_PREFIX)
    if data_dir is not None:
        config = msgspec.structs.replace(config, data_dir=data_dir)
    logs.configure(level=config.log_level)
    return config


def same_options(file: Path | None, data_dir: Path | None) -> str:
    """These options again, as another command of the same cloud takes them."""
    words = [f" --config {shlex.quote(str(file))}"] if file is not None else []
    words += [f" --data {shlex.quote(str(data_dir))}"] if data_dir is not None else []
    return "".join(words)
