"""Rows on their way to the log whose messages go to other devices once they are there."""

from __future__ import annotations

from edge.listeners.mqtt.network import MqttNetwork
from protocols.mqtt.incoming import Run
from protocols.mqtt.session import Session


class Routing:
    """Of one waiter, which hears of its rows in order."""

    def __init__(self, network: MqttNetwork, sender: Session, *, rows_before: int = 0) -> None:
        """`rows_before`: that wait already, and go nowhere."""
        self._network = network
        self._sender = sender
        self._runs: list[Run | None] = [None] * rows_before
        self._places: list[int] = [0] * rows_before

    def add(self, run: Run) -> None:
        count = len(run.payloads)
        self._runs += [run] * count
        self._places += range(count)

    def recorded(self, rows: int) -> None:
        """The oldest rows are on disk: sends them on."""
        network, sender = self._network, self._sender
        if not network.talks:
            self.refused(rows)
            return
        for run, place in zip(self._runs[:rows], self._places[:rows], strict=True):
            if run is not None:
                network.publish(
                    network.message(run.topic, run.payloads[place], run.qos, run.retain, run.properties), sender
                )
        self.refused(rows)

    def refused(self, rows: int) -> None:
        """The oldest rows are not."""
        del self._runs[:rows], self._places[:rows]
