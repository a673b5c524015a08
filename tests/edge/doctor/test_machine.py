"""What the checks say of clock, disk, data folder, limits and libraries."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from edge.config import EdgeConfig, LogConfig
from edge.doctor import clock, disk, folder, limits, versions
from edge.doctor.examination import examine
from edge.doctor.finding import Finding, Site, State, ok
from edge.identity import KEY_FILE, make_key
from protocols.messages import ClockState

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw,nosuid - tmpfs tmpfs rw,size=10%
31 22 8:2 / /data\\040disk rw - ext4 /dev/sdb1 rw
32 22 8:3 / /frozen rw - ext4 /dev/sdc1 ro
33 22 0:40 / /far rw - nfs4 nas:/export rw
34 22 8:4 / /card rw - vfat /dev/mmcblk0p1 rw
"""


class FixedClock:
    boot = 1

    def __init__(self, state: ClockState, wall_ms: int = 1_700_000_000_000) -> None:
        self._state = state
        self._wall_ms = wall_ms

    def wall_ms(self) -> int:
        return self._wall_ms

    def boot_ms(self) -> int:
        return 120_000

    def state(self) -> ClockState:
        return self._state

    def error_ms(self) -> int:
        return 12


def site(data_dir: Path, log: LogConfig | None = None) -> Site:
    return Site(EdgeConfig(data_dir=data_dir, log=log or LogConfig()), None, None, "enroll it", "start it")


def test_a_clock_is_judged_by_who_keeps_it() -> None:
    found = clock.of(FixedClock(ClockState.SYNCHRONIZED))
    assert (found.state, found.remedy) == (State.OK, "")
    assert "within 12 ms; 2023-11-14 22:13:20 UTC, up for 2 min" in found.seen
    for state, words in ((ClockState.RESTORED, "nobody synchronizes it"), (ClockState.UNSET, "was never set")):
        found = clock.of(FixedClock(state))
        assert found.state is State.WARNING
        assert words in found.seen
        assert "chrony" in found.remedy


@pytest.mark.parametrize(
    ("place", "state", "words"),
    [
        ("/var/lib/tidegate", State.OK, "ext4 at /"),
        ("/data disk/tidegate", State.OK, "ext4 at /data disk"),
        ("/tmp/tidegate", State.WARNING, "gone after a restart"),
        ("/frozen", State.FAILED, "read-only"),
        ("/far/x", State.WARNING, "on another machine"),
        ("/card/x", State.WARNING, "no journal"),
    ],
)
def test_the_file_system_that_a_folder_lies_in(place: str, state: State, words: str) -> None:
    found = disk.of_mount(disk.mount_of(Path(place), MOUNTS))
    assert found.state is state
    assert words in found.seen


@pytest.mark.parametrize(("slowest_ms", "state"), [(5.0, State.OK), (150.0, State.WARNING), (2_500.0, State.FAILED)])
def test_syncs_are_judged_by_the_slowest_that_devices_notice(slowest_ms: float, state: State) -> None:
    found = disk.of_syncs([1.0] * 98 + [slowest_ms] * 2)
    assert found.state is state
    assert found.seen.startswith(f"p50 1.00 ms, p90 1.00 ms, p99 {slowest_ms:.2f} ms of 100")


def test_measuring_leaves_nothing_behind_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "segment").write_bytes(b"precious")
    taken = disk.sync_ms(tmp_path)
    assert taken == sorted(taken)
    assert 0 < len(taken) <= disk.SYNCS
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log" / "segment").read_bytes() == b"precious"


def test_a_log_that_cannot_grow_to_its_cap_is_told_which_cap_fits(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    tight = disk.room(site(tmp_path, LogConfig(max_bytes=2 * free)), tmp_path)
    assert tight.state is State.WARNING
    assert "the disk is full before the log is" in tight.seen
    assert "set log.max_bytes to at most" in tight.remedy
    assert disk.room(site(tmp_path, LogConfig(max_bytes=100_000_000)), tmp_path).state is State.OK


def test_a_data_folder_that_is_not_there_is_made_by_the_first_start(tmp_path: Path) -> None:
    (found,) = folder.check(site(tmp_path / "data" / "deep"))
    assert found.state is State.OK
    assert not (tmp_path / "data").exists()


def test_a_data_folder_is_for_the_gateway_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_key(data)
    assert [one.state for one in folder.check(site(data))] == [State.OK]
    (data / KEY_FILE).chmod(0o644)
    data.chmod(0o755)
    open_folder, open_key = folder.check(site(data))
    assert (open_folder.state, open_folder.remedy) == (State.WARNING, f"chmod 700 {data}")
    assert (open_key.state, open_key.remedy) == (State.FAILED, f"chmod 600 {data / KEY_FILE}")
    assert stat.S_IMODE(data.stat().st_mode) == 0o755, "a doctor mends nothing"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_a_file_of_another_user_is_found(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "segment").touch()
    os.chown(tmp_path / "log" / "segment", 65_534, -1)
    found = folder.of(tmp_path)
    assert found.state is State.FAILED
    assert "but segment in it to nobody" in found.seen
    assert found.remedy.startswith(f"chown -R root {tmp_path}")


def test_a_limit_of_files_below_what_listeners_may_ask_for() -> None:
    assert limits.of_files(20_000, 10_256).state is State.OK
    assert limits.of_files(resource.RLIM_INFINITY, 10_256).state is State.OK
    found = limits.of_files(1_024, 10_256)
    assert found.state is State.WARNING
    assert "LimitNOFILE=10256" in found.remedy


def test_memory_counts_what_the_control_group_allows() -> None:
    assert limits.of_memory(2_000_000_000, None).state is State.OK
    assert limits.of_memory(2_000_000_000, 100_000_000).state is State.WARNING
    assert limits.of_memory(20_000_000, None).state is State.FAILED


def test_a_library_that_is_missing_is_named() -> None:
    required = ["msgspec", 'pyzmq; extra == "edge"', 'no-such-thing>=2; extra == "edge"', 'asyncpg; extra == "cloud"']
    found = versions.libraries(required)
    assert found.state is State.FAILED
    assert found.seen == "missing: no-such-thing"
    assert versions.libraries(required[:2]).state is State.OK


def test_a_check_that_fails_itself_keeps_no_other_from_its_work(tmp_path: Path) -> None:
    def broken(_site: Site) -> list[Finding]:
        raise ZeroDivisionError("nobody thought of it")

    found = list(examine(site(tmp_path), (broken, lambda _: iter([ok("next", "fine")]))))  # type: ignore[arg-type]
    assert [(one.state, one.check) for one in found] == [(State.FAILED, "test_machine"), (State.OK, "next")]
    assert "nobody thought of it" in found[0].seen
