"""A project from nothing to a history query, by a client that was generated from the API's own description.

    openapi-python-client generate --url http://127.0.0.1:8080/api/v1/openapi.json --output-path client
    PYTHONPATH=client python first_project.py http://127.0.0.1:8080 admin PASSWORD

Each function of the client has the name of its operation (`operationId`), and gives what was answered, or a problem.
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from tidegate_client import AuthenticatedClient, Client
from tidegate_client.api.access import create_api_key
from tidegate_client.api.blueprints import create_blueprint
from tidegate_client.api.data import get_device_series
from tidegate_client.api.devices import create_device
from tidegate_client.api.messages import post_messages
from tidegate_client.api.networks import create_network
from tidegate_client.api.projects import create_project
from tidegate_client.api.session import sign_in
from tidegate_client.api.systems import create_system
from tidegate_client.models import (
    Attribute,
    AttributeType,
    NewAlias,
    NewApiKey,
    NewApiKeyPermissionsItem,
    NewBlueprint,
    NewBlueprintAttributes,
    NewDevice,
    NewNetwork,
    NewProject,
    NewSystem,
    ProblemDetails,
    SentMessage,
    SignIn,
)

T = TypeVar("T")
PROJECT = "orchard"


def done(answer: T | ProblemDetails | None) -> T:
    """The answer; a problem ends the program with what it says."""
    if answer is None or isinstance(answer, ProblemDetails):
        sys.exit(f"error: {answer.detail if answer else 'no answer'}")
    return answer


def main(url: str, user: str, password: str) -> None:
    session = done(sign_in.sync(client=Client(url), body=SignIn(user=user, password=password)))
    client = AuthenticatedClient(url, session.token)
    within: dict[str, Any] = {"client": client, "project_id": PROJECT}

    # What there is: a project, a system for its devices, a network that they are heard on, a model of them.
    done(create_project.sync(client=client, body=NewProject(id=PROJECT, name="Orchard")))
    done(create_system.sync(**within, body=NewSystem(id="north", name="North slope")))
    done(create_network.sync(**within, body=NewNetwork(id="probes", name="Soil probes", alias_key="serial")))
    attributes = NewBlueprintAttributes()
    attributes["moisture"] = Attribute(type_=AttributeType.NUMBER, unit="%", minimum=0, maximum=100)
    done(create_blueprint.sync(**within, body=NewBlueprint(id="probe", name="Soil probe", attributes=attributes)))
    alias = NewAlias(network_id="probes", alias="p-17")
    probe = NewDevice(system_id="north", blueprint_id="probe", name="Probe 17", aliases=[alias])
    device = done(create_device.sync(**within, body=probe))

    # Telemetry comes by a key that can do nothing else. `wait=stored`: the answer says what became of each message.
    key = NewApiKey(name="probes", permissions=[NewApiKeyPermissionsItem.INGEST])
    sender = AuthenticatedClient(url, done(create_api_key.sync(**within, body=key)).key)
    sent = [SentMessage(network_id="probes", alias="p-17", data={"moisture": value}) for value in (31.5, 33, 34.5)]
    for result in done(post_messages.sync(client=sender, body=sent, wait="stored", within_s=20)):
        print(f"record {result.record}: {result.fate}")

    # What the device said in the last hour, in one bucket.
    asked = {"path": ["moisture"], "function": ["avg", "max"], "last": "1h"}
    for row in done(get_device_series.sync(str(device.id), client=client, **asked)).items:
        print(f"{row.path}: {row.avg:.1f} % on average, {row.max_:.1f} % at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
