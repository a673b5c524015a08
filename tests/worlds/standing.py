"""What has to hold of a gateway's own account at every moment, looked at every virtual second."""

from __future__ import annotations

from sync.link.limits import CREDIT_BYTES
from sync.log.accounting import EpochAccounting, LogAccounting
from sync.log.settings import QUEUE_BYTES_MAX
from tests.worlds.gateway import Gateway, Life


class StandingWatch:
    """Of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._life: Life | None = None
        self._watermarks: dict[int, int] = {}
        """By epoch, in this life: a crash may set them back by what was not remembered yet."""

    def look(self) -> None:
        """Has the process look at itself, as soon as it can."""
        gateway, life = self._gateway, self._gateway.life
        most = gateway.settings.max_bytes
        if gateway.disk.largest_bytes > most:
            gateway.laws.broken(
                "the cap is held", f"{gateway.name}: {gateway.disk.largest_bytes:,} bytes, {most:,} are allowed"
            )
        if life is not None:
            life.process.do(self._look, life)

    def _look(self, life: Life) -> None:
        gateway = self._gateway
        laws = gateway.laws
        if life is not gateway.life or not life.listening:
            return
        if life is not self._life:
            self._life = life
            self._watermarks.clear()
        account = life.account = life.log.accounting()
        parts: list[LogAccounting | EpochAccounting] = [account, *account.epochs]
        for part in parts:
            if part.logged != part.accepted + part.pending + part.evicted + part.damaged or part.pending < 0:
                laws.broken("accounting closes", f"{gateway.name}: {part}")
        for epoch in account.epochs:
            if epoch.watermark < self._watermarks.get(epoch.epoch, 0):
                laws.broken("the watermark never goes back", f"{gateway.name}: {epoch}")
            self._watermarks[epoch.epoch] = epoch.watermark
        for epoch_id, first, _ in life.log.in_flight():
            if life.log.where(epoch_id, first) == "evicted":
                laws.broken("what is in flight is not evicted", f"{gateway.name}: {epoch_id:x}/{first}")
        for what, held, bound in (
            ("bytes in flight", life.link.status.in_flight_bytes, CREDIT_BYTES),
            ("bytes queued for the log", life.log.queued_bytes, 2 * QUEUE_BYTES_MAX),
        ):
            if held > bound:
                laws.broken("bounds are held", f"{gateway.name}: {held:,} {what}, {bound:,} are allowed")
