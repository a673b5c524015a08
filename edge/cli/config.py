"""`tidegate-edge config`: what is in force, or what is wrong with it."""

from __future__ import annotations

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, load_config

app = typer.Typer(help="The configuration.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """The configuration."""


@app.command()
def check(config_file: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print what is in force; say file, line, setting and limit of what is wrong."""
    import msgspec

    from edge.config import ENV_PREFIX, EdgeConfig
    from tidegate.config import settings
    from tidegate.console import print_json, show

    config = load_config(config_file, data_dir)
    if as_json:
        print_json(config)
        return
    tree = msgspec.to_builtins(config, enc_hook=str)
    rows = []
    for setting in settings(EdgeConfig, env_prefix=ENV_PREFIX):
        if "[]" not in setting.path:
            value = tree
            for word in setting.path.split("."):
                value = value[word]
            rows.append({"setting": setting.path, "value": value, "what": setting.description})
    show(rows, columns={"setting": "setting", "value": "value", "what": "what it is"}, as_json=False)
