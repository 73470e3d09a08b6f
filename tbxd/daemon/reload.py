"""Changes of settings while the daemon runs: the file is read again, and live settings are applied.

It is read on a thread of its own: its disk may hang, and the main loop, which acknowledges records, must not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..config.settings import SETTINGS, Settings
from ..config.sources import Config
from ..process.sd_notify import Notifier
from ..transport.server_socket import Peer

log = logging.getLogger(__name__)


class Reloader:
    """Reads the settings again on request. Lives on the main thread.

    Args:
        config: the settings at the start.
        load: reads them again; raises OSError or ValueError if they are invalid.
        wake: wakes the main thread; called from the reading thread.
        notifier: notified when a reload begins and ends.
    """

    def __init__(
        self, config: Config, load: Callable[[], Config], wake: Callable[[], None], notifier: Notifier
    ) -> None:
        self.file = config.file
        self._load = load
        self._wake = wake
        self._notifier = notifier
        self._asked = False
        self._askers: list[Peer] = []
        self._served: list[Peer] = []  # who has asked before the file was opened
        self._reading = False
        self._read: Config | str | None = None  # set by the thread, as the last thing that it does

    def ask(self, peer: Peer | None = None) -> None:
        """Request a reload; ``peer`` gets the result. A signal handler may call this."""
        if peer is not None:
            self._askers.append(peer)
        self._asked = True

    def step(self, running: Settings) -> tuple[Settings, dict[str, Any], list[Peer]] | None:
        """Start a requested reload; return its result, once there is one.

        Args:
            running: the current settings.

        Returns:
            The settings from now on, the `_answer`, and the peers that have asked.
        """
        if self._asked and not self._reading:
            self._asked = False
            self._askers, self._served = [], self._askers
            self._begin()
        if self._read is None:
            return None
        read, self._read, self._reading = self._read, None, False
        if self._asked:
            self._wake()
        if isinstance(read, str):
            settings, answer = running, _answer(problem=read)
        else:
            self.file = read.file
            settings, answer = take_over(running, read)
        self._notifier.reloaded()
        return settings, answer, self._served

    def _begin(self) -> None:
        self._reading = True
        self._notifier.reloading()
        try:
            threading.Thread(target=self._read_again, name="reload", daemon=True).start()
        except RuntimeError as error:  # there may be no more threads
            self._read = str(error)

    def _read_again(self) -> None:  # on a thread of its own
        try:
            read: Config | str = self._load()
        except (OSError, ValueError) as error:
            read = str(error)
        except Exception as error:
            log.exception("settings")
            read = f"internal error: {type(error).__name__}: {error}"
        self._read = read
        self._wake()


def take_over(running: Settings, config: Config) -> tuple[Settings, dict[str, Any]]:
    """Return the settings after a reload, and the answer.

    Args:
        running: the settings before.
        config: the settings that were read.
    """
    before, after = running.values(), config.settings.values()
    differing = [setting for setting in SETTINGS if before[setting.name] != after[setting.name]]
    live = {setting.name: getattr(config.settings, setting.name) for setting in differing if setting.live}
    pairs = {setting.name: [before[setting.name], after[setting.name]] for setting in differing}
    return replace(running, **live), _answer(
        file=str(config.file or ""),
        changed={name: pair for name, pair in pairs.items() if name in live},
        restart={name: pair for name, pair in pairs.items() if name not in live},
        hidden={name: str(origin) for name, origin in config.hidden.items()},
    )


def _answer(
    problem: str = "",
    file: str = "",
    changed: dict[str, Any] | None = None,
    restart: dict[str, Any] | None = None,
    hidden: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the answer for `tbxd reload` and the log.

    Args:
        problem: why nothing has changed; "" if the reload succeeded.
        file: the file that was read; "" if there is none.
        changed: name to [before, now].
        restart: name to [now, value in the file], for settings that need a restart.
        hidden: name to the option or variable of the daemon's start that overrides the file.
    """
    return {
        "problem": problem,
        "file": file,
        "changed": changed or {},
        "restart": restart or {},
        "hidden": hidden or {},
    }


def lines(answer: dict[str, Any]) -> list[str]:
    """Return an answer as text, a line for each setting."""
    if answer["problem"]:
        return [f"the settings stay as they are: {problem}" for problem in answer["problem"].splitlines()]
    said = [f"{name}: {_shown(new)} (was {_shown(old)})" for name, (old, new) in answer["changed"].items()]
    said += [
        f"{name}: {_shown(new)} holds after a restart, until then {_shown(old)}"
        for name, (old, new) in answer["restart"].items()
    ]
    said += [f"{name}: the daemon was started with {where}, which counts" for name, where in answer["hidden"].items()]
    return said or ["nothing has changed"]


def _shown(value: Any) -> str:
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
