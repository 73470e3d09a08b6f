"""Tells the user that no daemon answers: once, with the attempts made and the place where the records wait.

A daemon of this host is started by the sender and its start looked after (`launcher`); here it is about an address that
was configured, at which nobody is started, and about a daemon that is there and says nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from ..config.paths import ADDRESS_VARIABLE, daemon_addresses
from ..config.settings import warn, was_said

FIRST_SECONDS = 4.0  # without an answer to a process that has had none yet, at an address that was configured
START_SECONDS = 20.0  # where a daemon is started, which takes up to 15
AGAIN_SECONDS = 30.0  # without one that was there before: one that is started anew is back by then
TOLD_SECONDS = 600.0  # between two outages that are told, so that a link that flaps does not fill the log of a job


class Outage:
    """Watches if a daemon answers a sender, and tells the user.

    Args:
        address: where it looks for one.
        starts: whether it starts one itself where there is none.
        place: the path of the journal in which records wait.
    """

    def __init__(self, address: str, starts: bool, place: str) -> None:
        self._address = address
        self._starts = starts
        self._place = place
        self._since = -1.0  # since when nobody answers; negative while somebody does, or has not been looked for
        self._met = False  # somebody has answered
        self._told = False  # of this outage
        self._next = 0.0  # before that no other is told
        self._number = 0  # of the outages that were told

    def look(self, now: float, answered: bool, known: bool, how: Callable[[], str]) -> None:
        """Note the present state, and tell the user if it is time. Call this several times a second.

        Args:
            now: by the monotonic clock.
            answered: a daemon answers.
            known: the reason why none does has been told already.
            how: what has become of the attempts to connect, in words.
        """
        if answered:
            if self._told:
                seconds = now - self._since
                warn(
                    f"the daemon at {self._address} answers after {seconds:,.0f} s; the records that waited are sent",
                    once=f"outage {self._number} over",
                )
            self._since, self._met, self._told = -1.0, True, False
            return
        if self._since < 0 or (known and not self._told):
            self._since = now  # when the reason is over, an answer takes its moment
        if self._told or known or now < self._next:
            return
        patience = AGAIN_SECONDS if self._met else START_SECONDS if self._starts else FIRST_SECONDS
        if now - self._since < patience or (self._starts and was_said("launch", "service")):
            return
        self._told, self._next = True, now + TOLD_SECONDS
        self._number += 1
        warn(
            f"no daemon answers at {self._address}{self._source()}: {how()}. Records wait in {self._place}",
            once=f"outage {self._number}",
        )

    def _source(self) -> str:
        if not self._starts:
            return f" ({ADDRESS_VARIABLE})"
        listens = daemon_addresses()
        if listens and self._address not in listens:
            return f", the one of this runtime folder listens at {listens[0]} (set {ADDRESS_VARIABLE} to that)"
        return " (`tbxd doctor` may say why)"
