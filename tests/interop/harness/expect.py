"""Assertions that report the expected and the actual value."""

from collections import Counter
from collections.abc import Callable, Iterable
import time


class Failed(Exception):
    """An assertion of a case failed."""


class Skipped(Exception):
    """A case cannot run on this machine."""


def equal(what: str, seen: object, wanted: object) -> None:
    """Asserts equality. `what` names the value in the message."""
    if seen != wanted:
        raise Failed(f"{what}: expected {wanted!r}, saw {seen!r}")


def true(claim: str, held: object, seen: object = "") -> None:
    """Asserts a condition. `claim` states it in the message."""
    if not held:
        raise Failed(f"not true: {claim}" + (f"; saw {seen!r}" if seen != "" else ""))


def contains(what: str, text: str, *parts: str) -> None:
    """Asserts that `text` contains all of `parts`."""
    for part in parts:
        if part not in text:
            raise Failed(f"{what}: expected {part!r} in it, saw:\n{text.strip()}")


def same_items(what: str, seen: Iterable[object], wanted: Iterable[object]) -> None:
    """Asserts equal multisets of items. The message shows only the differences."""
    had, should = Counter(seen), Counter(wanted)
    missing, extra = list((should - had).elements()), list((had - should).elements())
    if missing or extra:
        raise Failed(
            f"{what}: {len(missing)} of {should.total()} items are missing: {missing[:10]!r}, "
            f"{len(extra)} are unexpected: {extra[:10]!r}"
        )


def eventually(what: str, probe: Callable[[], object], deadline: float = 120) -> object:
    """Calls `probe` until it returns a true value, and returns that. The deadline only ends a case that hangs."""
    end = time.monotonic() + deadline
    while True:
        seen = probe()
        if seen:
            return seen
        if time.monotonic() > end:
            raise Failed(f"not within {deadline:.0f} s: {what}")
        time.sleep(0.1)
