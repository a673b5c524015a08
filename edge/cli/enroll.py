"""`tidegate-edge enroll URL --token T`: makes this gateway known to a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, load_config, start_command


def enroll(
    url: Annotated[str, typer.Argument(help="Address of the cloud: https://cloud.example.com", metavar="URL")],
    token: Annotated[
        str, typer.Option("--token", help="Enrolment token, made in the cloud (its API).", show_default=False)
    ],
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make this gateway known to a cloud: its key pair is made here, and the private key stays here."""
    from edge.enrolment import enrol
    from tidegate.console import print_json

    config = load_config(config_file, data_dir)
    ca_file = Path(config.link.ca_file) if config.link.ca_file else None
    enrolment = enrol(url, token, config.data_dir, ca_file=ca_file)
    if as_json:
        print_json(enrolment)
        return
    print(f"enrolled as gateway {enrolment.gateway_id} of project {enrolment.project_id}")
    print(f"  start it: {start_command(config_file, data_dir)}")
