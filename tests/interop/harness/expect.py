"""Checks that say what was expected and what was seen."""

from collections import Counter
from collections.abc import Callable, Iterable
import time


class Failed(Exception):
    """A case did not see what it should; the message says both."""


def equal(what: str, seen: object, wanted: object) -> None:
    """`what` names the thing as a reader of the report would."""
    if seen != wanted:
        raise Failed(f"{what}: expected {wanted!r}, saw {seen!r}")


def true(claim: str, held: object, seen: object = "") -> None:
    """For whatever is not an equality; `claim` is the sentence that should hold."""
    if not held:
        raise Failed(f"this does not hold: {claim}" + (f"; saw {seen!r}" if seen != "" else ""))


def contains(what: str, text: str, *parts: str) -> None:
    """Every one of `parts` stands in `text`."""
    for part in parts:
        if part not in text:
            raise Failed(f"{what}: expected {part!r} in it, saw:\n{text.strip()}")


def same_items(what: str, seen: Iterable[object], wanted: Iterable[object]) -> None:
    """The same items, each as often, whatever their order. Of long lists only the difference is told."""
    had, should = Counter(seen), Counter(wanted)
    missing, extra = list((should - had).elements()), list((had - should).elements())
    if missing or extra:
        raise Failed(
            f"{what}: {len(missing)} of {should.total()} items are missing {missing[:10]!r}, "
            f"{len(extra)} are too many {extra[:10]!r}"
        )


def eventually(what: str, probe: Callable[[], object], deadline: float = 120) -> object:
    """Asks `probe` until it gives something true, and returns that. The deadline guards against hanging only."""
    end = time.monotonic() + deadline
    while True:
        seen = probe()
        if seen:
            return seen
        if time.monotonic() > end:
            raise Failed(f"this did not come to hold within {deadline:.0f} s: {what}")
        time.sleep(0.1)
