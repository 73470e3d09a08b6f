"""What a record needs to be read goes to the daemon before it, whatever other threads log meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tbxd_client.journal.journal import Journal
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import TagDefinition, pack_definition, pack_scalar
from tbxd_client.transport.connection import Link
from tbxd_client.transport.sender import Sender


class Busy:
    """A journal into which another thread logs a new tag each time after the sender has looked how far it is."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.needs: list[tuple[int, int]] = []  # the end of a record, and of the definitions that it needs

    def _log(self) -> None:
        number = len(self.needs)
        self._journal.define(pack_definition(TagDefinition(number, 0, f"tag {number}")))
        assert self._journal.append(pack_scalar(number, 0, 1.0, 1.0)) == ""
        self.needs.append((self._journal.committed, self._journal.definitions_end))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._journal, name)
        if name in ("committed", "definitions_end"):
            self._log()
        return value


class Sent(Link):
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[wire.Message] = []

    def send(self, frames: list[bytes]) -> bool:
        """Take a message."""
        self.messages.append(wire.unpack(frames))
        return True


def test_definitions_are_sent_before_the_records_that_another_thread_logs_with_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    busy: Any = Busy(journal)
    busy._log()
    sender = Sender(busy, doorbell=None, address="ipc://nobody", launcher=None, reports=dict, settled=lambda _: None)  # type: ignore[arg-type]
    sender._limit, link = 1 << 30, Sent()
    for _ in range(5):
        sender._send(link)
    defined = sent = 0
    for message in link.messages:
        assert isinstance(message, wire.Data)
        if message.stream == wire.DEFINITIONS:
            defined = message.position + len(message.payload)
        else:
            sent = message.position + len(message.payload)
            needed = max(needs for end, needs in busy.needs if end <= sent)
            assert needed <= defined, "a record whose tag the daemon does not know"
    assert sent and defined
    journal.close()
