"""The house: what holds for the project as a whole, and would rot unseen."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from msgspec import inspect

from cloud.config import ENV_PREFIX as CLOUD_PREFIX
from cloud.config import CloudConfig
from edge.config import ENV_PREFIX as EDGE_PREFIX
from edge.config import EdgeConfig
from tidegate.config import Setting, settings

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

KINDS = ((EdgeConfig, EDGE_PREFIX), (CloudConfig, CLOUD_PREFIX))


def every_setting() -> list[Setting]:
    return [setting for kind, prefix in KINDS for setting in settings(kind, env_prefix=prefix)]


def test_every_setting_is_described() -> None:
    bare = [setting.environment or setting.path for setting in every_setting() if not setting.description]
    assert bare == []


def test_every_setting_stands_in_the_docs() -> None:
    written = (ROOT / "docs" / "SETTINGS.md").read_text()
    made = runpy.run_path(str(ROOT / "docs" / "settings.py"))["page"]()
    assert written == made, "docs/SETTINGS.md is not what the code says: run `make docs`"
    missing = [setting.environment for setting in every_setting() if setting.environment not in written]
    assert missing == []


def test_configurations_cannot_change_and_forbid_unknown_settings() -> None:
    for kind, _ in KINDS:
        for struct in structs_in(inspect.type_info(kind)):
            assert struct.forbid_unknown_fields, struct.cls
            assert struct.cls.__struct_config__.frozen, struct.cls


def structs_in(kind: inspect.Type) -> list[inspect.StructType]:
    if isinstance(kind, inspect.StructType):
        return [kind, *(inner for field in kind.fields for inner in structs_in(field.type))]
    below = [getattr(kind, name, None) for name in ("type", "item_type", "value_type")]
    members = [*below, *getattr(kind, "types", ())]
    return [inner for member in members if isinstance(member, inspect.Type) for inner in structs_in(member)]


def test_lock_files_pin_everything_by_hash_and_name_no_host() -> None:
    assert {path.name for path in LOCKS} == {"bootstrap.txt", "run.txt", "dev.txt", "client.txt"}
    for path in LOCKS:
        text = path.read_text()
        assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|^-[if] ", text, re.MULTILINE), (
            path.name
        )
        for block in re.split(r"\n(?=\S)", text.strip()):
            assert re.match(r"[\w.-]+==\S+ ", block), f"{path.name}: {block[:60]}"
            assert "--hash=sha256:" in block, f"{path.name}: {block[:60]}"


def test_lock_files_hold_what_the_project_asks_for() -> None:
    pinned = {path.stem: set(re.findall(r"^([\w.-]+)==", path.read_text(), re.MULTILINE)) for path in LOCKS}
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    assert {name_of(each) for each in wanted} <= pinned["run"]
    assert {name_of(each) for each in PROJECT["dependency-groups"]["dev"]} <= pinned["dev"]
    assert {name_of(each) for each in PROJECT["dependency-groups"]["client"]} <= pinned["client"]
    assert {name_of(each) for each in PROJECT["build-system"]["requires"]} <= pinned["bootstrap"]


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def test_the_same_package_has_one_version_in_all_lock_files() -> None:
    """But for the generator of clients, which has an environment of its own."""
    versions: dict[str, set[str]] = {}
    for path in LOCKS:
        if path.name == "client.txt":
            continue
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_test_folders_are_packages_and_shadow_none() -> None:
    folders = [path.parent for path in (ROOT / "tests").rglob("test_*.py")]
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_license_is_apache_2() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    assert metadata.version("tidegate") == version
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for path in (path for package in packages for path in (ROOT / package).rglob("*.py")):
        assert "__version__" not in path.read_text(), path
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_extras_are_for_what_exists() -> None:
    assert set(PROJECT["project"]["optional-dependencies"]) == {"edge", "cloud", "sim"}
    assert set(PROJECT["project"]["scripts"]) == {"tidegate-edge", "tidegate-cloud", "tidegate-sim"}


def test_make_lists_what_people_use() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    for target in ("run", "reset", "test", "check", "fuzz", "faults", "bench"):
        assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE), target


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / ".run" / "data").mkdir(parents=True)
    return tmp_path


def test_reset_deletes_what_was_kept(clone: Path) -> None:
    (clone / ".run" / "demo.pid").write_text("4194305")  # above the highest number that Linux gives
    subprocess.run(["make", "reset"], cwd=clone, capture_output=True, timeout=30, check=True)
    assert not (clone / ".run").exists()


def test_reset_refuses_while_the_demo_runs(clone: Path) -> None:
    demo = subprocess.Popen(["bash", "-c", "read line", "firmware_sim.demo"], stdin=subprocess.PIPE)
    try:
        (clone / ".run" / "demo.pid").write_text(str(demo.pid))
        done = subprocess.run(["make", "reset"], cwd=clone, capture_output=True, text=True, timeout=30, check=False)
    finally:
        demo.communicate(b"\n")
    assert done.returncode != 0
    assert f"error: the demo is running, as process {demo.pid}" in done.stderr
    assert (clone / ".run" / "data").exists()


def test_reset_refuses_while_a_part_of_a_killed_demo_runs(clone: Path) -> None:
    database = subprocess.Popen(["bash", "-c", "read line", f"{clone}/.run/data/postgresql"], stdin=subprocess.PIPE)
    try:
        done = subprocess.run(["make", "reset"], cwd=clone, capture_output=True, text=True, timeout=30, check=False)
    finally:
        database.communicate(b"\n")
    assert done.returncode != 0
    assert f"error: .run/ is in use, by process {database.pid}" in done.stderr
    assert (clone / ".run" / "data").exists()


def test_ci_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert re.search(r"^exec make .*\btest\b", script.read_text(), re.MULTILINE)
    assert "make test" in (ROOT / "README.md").read_text()
