"""One call at a time, and what a signal handler puts off: without a journal, threads or signals."""

from __future__ import annotations

import pytest

from tbxd_client.process.reentrancy import Turns, Wait


def test_what_was_put_off_is_done_although_a_handler_raises_in_its_wait() -> None:
    """Who logged it was told that it is taken: it is kept or counted, and the call that was interrupted is done."""
    turns, done = Turns(), []

    def stopped() -> None:
        raise KeyboardInterrupt

    def put_off(patient: bool) -> Wait | None:
        if patient:
            return stopped
        done.append("put off")
        return None

    def interrupted(patient: bool) -> Wait | None:
        assert turns.run(put_off), "as a handler in the midst of this"
        done.append("interrupted")
        return None

    with pytest.raises(KeyboardInterrupt):
        turns.run(interrupted)
    assert done == ["interrupted", "put off"]


def test_a_call_whose_wait_ends_with_an_exception_is_given_up() -> None:
    turns, looks = Turns(), []

    def stopped() -> None:
        raise KeyboardInterrupt

    def waits(patient: bool) -> Wait | None:
        looks.append(patient)
        return stopped

    with pytest.raises(KeyboardInterrupt):
        turns.run(waits)
    assert looks == [True], "its caller sees that"
    assert turns.run(lambda patient: None)
