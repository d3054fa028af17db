"""The registry: what a case is, and where cases come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import importlib
from pathlib import Path
import shutil
from typing import TYPE_CHECKING

from harness.expect import Failed

if TYPE_CHECKING:
    from harness.context import Context

ROOT = Path(__file__).resolve().parent.parent
"""tests/interop"""

HINTS = {
    "java": "a JDK 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)",
    "javac": "a JDK 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)",
    "go": "Go (https://go.dev/dl)",
    "node": "Node.js (Debian: apt-get install nodejs)",
    "npm": "npm (Debian: apt-get install npm)",
    "dpkg-deb": "dpkg, which every Debian has; kcat comes as a package of it",
}


@dataclass(frozen=True)
class Case:
    """A name, what it shows, and the function that shows it."""

    name: str
    shows: str
    body: "Callable[[Context], None]"
    short: bool
    needs: Sequence[str]

    def missing(self) -> str | None:
        """The first program that it needs and that is not here, as a sentence."""
        for program in self.needs:
            if shutil.which(program) is None:
                return f"{program} is not in the PATH; it comes with {HINTS.get(program, program)}"
        return None


_registry: dict[str, Case] = {}


def case(
    name: str, shows: str, *, short: bool = False, needs: Sequence[str] = ()
) -> "Callable[[Callable[[Context], None]], Callable[[Context], None]]":
    """Registers the function below as a case; `short` puts it into what .ci/run takes."""

    def register(body: "Callable[[Context], None]") -> "Callable[[Context], None]":
        if name in _registry:
            raise ValueError(f"two cases have the name {name}")
        _registry[name] = Case(name, shows, body, short, tuple(needs))
        return body

    return register


def load() -> list[Case]:
    """Every case of every folder that has a cases.py, in the order in which they stand there."""
    for file in sorted(ROOT.glob("*/cases.py")):
        if file.parent.name != "harness":
            importlib.import_module(f"{file.parent.name}.cases")
    return list(_registry.values())


def select(cases: Sequence[Case], names: Sequence[str], short: bool) -> list[Case]:
    """Those with these names, or whose names begin with one of them and a dot; all without names; of these the short ones."""
    for name in names:
        if not any(case.name == name or case.name.startswith(f"{name}.") for case in cases):
            raise Failed(f"there is no case {name}; --list names them")
    return [
        case
        for case in cases
        if (case.short or not short)
        and (not names or any(case.name == name or case.name.startswith(f"{name}.") for name in names))
    ]
