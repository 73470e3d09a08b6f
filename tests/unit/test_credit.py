"""The daemon's memory is shared out in bytes, and nobody who waits for a grant waits for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tbxd.transport.credit import (
    GRANT_SECONDS,
    GRANTS_BYTES_MAX,
    HURRY_BYTES,
    HURRY_BYTES_MAX,
    KEPT_BYTES_MAX,
    QUEUE_BYTES_MAX,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    Credit,
    kept,
    memory_most,
    window,
)


def test_the_window_is_a_part_of_the_whole_within_its_bounds() -> None:
    credit = Credit()
    for sessions in (1, 8, 16, 64, 256, 100_000):
        limit = credit.limit(b"a", 1000, 1000, 0, sessions, 0.0)
        assert WINDOW_BYTES_MIN <= limit - 1000 <= WINDOW_BYTES_MAX
        assert sessions * (limit - 1000) <= max(QUEUE_BYTES_MAX, sessions * WINDOW_BYTES_MIN)


def test_what_waits_for_other_ranks_takes_nothing_of_the_window_up_to_a_bound_of_its_own() -> None:
    for sessions in (1, 2, 256):
        assert Credit.base(1000, 1000, sessions) == 1000
        assert Credit.base(1000, 1000 + kept(sessions), sessions) == 1000 + kept(sessions)
        assert Credit.base(1000, 1 << 40, sessions) == 1000 + kept(sessions)
        assert sessions * kept(sessions) <= KEPT_BYTES_MAX


def test_a_client_that_makes_nothing_of_its_grant_keeps_nobody_waiting() -> None:
    credit = Credit()
    large = WINDOW_BYTES_MAX + GRANTS_BYTES_MAX
    assert credit.limit(b"a", 0, 10, large, 1, 0.0) == large, "the first one is given whatever it needs"
    assert credit.limit(b"b", 0, 10, large, 1, 1.0) == WINDOW_BYTES_MAX and credit.waiting == {b"b"}
    assert credit.limit(b"a", 0, 11, large, 1, 2.0) == large, "it gets on, so its time begins again"
    assert credit.limit(b"b", 0, 10, large, 1, 1.0 + GRANT_SECONDS) == WINDOW_BYTES_MAX
    assert credit.limit(b"b", 0, 10, large, 1, 2.0 + GRANT_SECONDS) == large and not credit.waiting


def test_a_key_that_holds_all_grants_keeps_nobody_else_waiting() -> None:
    credit = Credit()
    large = WINDOW_BYTES_MAX + GRANTS_BYTES_MAX
    assert credit.limit(b"a", 0, 10, large, 1, 0.0, "one") == large
    assert credit.limit(b"b", 0, 10, large, 1, 0.0, "one") == WINDOW_BYTES_MAX, "its own second record waits"
    for name, owner in ((b"c", "other"), (b"d", "")):
        assert credit.limit(name, 0, 10, large, 1, 0.0, owner) == large, "one for each owner"
    assert credit.waiting == {b"b"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 300 << 20), min_size=1, max_size=12), st.integers(2 << 20, 8 << 20))
def test_every_record_gets_through_and_few_are_on_their_way_together(sizes: list[int], stretch: int) -> None:
    """Each session sends one record, in turns, as far as its limit allows; what is whole is written at once."""
    credit = Credit()
    come = dict.fromkeys(range(len(sizes)), 0)
    turns = 0
    while come:
        turns += 1
        before = dict(come)
        for number in list(come):
            session, size = bytes([number]), sizes[number]
            limit = credit.limit(session, 0, come[number], size if come[number] else 0, len(sizes), 0.0)
            come[number] = min(size, limit, come[number] + stretch)
            if come[number] == size:
                del come[number]
                credit.limit(session, size, size, size, len(sizes), 0.0)
        assert come != before, "somebody always gets on"
        largest = max(sizes)
        assert sum(come.values()) <= len(sizes) * WINDOW_BYTES_MAX + max(GRANTS_BYTES_MAX, largest)


def test_who_uses_a_small_window_up_has_a_larger_one_while_there_is_room_for_it() -> None:
    credit, many = Credit(), 500
    most = window(many)
    assert credit.limit(b"a", 0, most // 2 - 1, 0, many, 0.0) == most
    assert credit.limit(b"a", 0, most // 2, 0, many, 0.0) == HURRY_BYTES
    assert credit.limit(b"a", 0, 0, 0, many, 0.0) == HURRY_BYTES, "what was promised stays so"
    for number in range(HURRY_BYTES_MAX // (HURRY_BYTES - most)):
        credit.limit(b"%d" % number, 0, most, 0, many, 0.0)
    assert credit.limit(b"b", 0, most, 0, many, 0.0) == most, "there is no more"
    credit.forget(b"a")
    assert credit.limit(b"b", 0, most, 0, many, 0.0) > most
    assert credit.limit(b"c", 0, window(8), 0, 8, 0.0) == window(8) > HURRY_BYTES


PARTS = st.sampled_from([0.0, 0.4, 1.0, 1.0])


@given(st.lists(st.tuples(st.integers(0, 20), PARTS, PARTS, st.integers(0, 9)), max_size=300))
def test_what_is_promised_beyond_the_windows_is_bounded_whoever_hurries_stops_and_goes(
    turns: list[tuple[int, float, float, int]],
) -> None:
    """Each session sends a part of what it may, of which a part is written, or goes."""
    credit, many = Credit(), 500
    written, expected, promised = (dict.fromkeys(range(21), 0) for _ in range(3))
    for number, sent, done, gone in turns:
        session = b"%d" % number
        if not gone:
            credit.forget(session)
            written[number] = expected[number] = promised[number] = 0
            continue
        limit = credit.limit(session, written[number], expected[number], 0, many, 0.0)
        assert limit >= max(promised[number], written[number] + window(many))
        promised[number] = limit
        expected[number] += int((limit - expected[number]) * sent)
        written[number] += int((expected[number] - written[number]) * done)
        beyond = sum(max(0, end - written[one] - window(many)) for one, end in promised.items())
        assert beyond <= HURRY_BYTES_MAX
    assert memory_most(many) >= 3 * (many * window(many) + HURRY_BYTES_MAX)
