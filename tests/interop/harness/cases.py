"""The registry of cases."""

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
    """A test case: a name, a description, and a function."""

    name: str
    shows: str
    body: "Callable[[Context], None]"
    short: bool
    needs: Sequence[str]

    def missing(self) -> str | None:
        """Returns a message about the first required program that is missing, if any."""
        for program in self.needs:
            if shutil.which(program) is None:
                return f"{program} is not in the PATH; it comes with {HINTS.get(program, program)}"
        return None


_registry: dict[str, Case] = {}


def case(
    name: str, shows: str, *, short: bool = False, needs: Sequence[str] = ()
) -> "Callable[[Callable[[Context], None]], Callable[[Context], None]]":
    """Registers a function as a case. `short` adds it to the cases that .ci/run runs."""

    def register(body: "Callable[[Context], None]") -> "Callable[[Context], None]":
        if name in _registry:
            raise ValueError(f"two cases have the name {name}")
        _registry[name] = Case(name, shows, body, short, tuple(needs))
        return body

    return register


def load() -> list[Case]:
    """Returns all cases of all folders with a cases.py, in the order of their definition."""
    for file in sorted(ROOT.glob("*/cases.py")):
        if file.parent.name != "harness":
            importlib.import_module(f"{file.parent.name}.cases")
    return list(_registry.values())


def select(cases: Sequence[Case], names: Sequence[str], short: bool) -> list[Case]:
    """Selects the cases with these names, or with names that begin with one of them and a dot. Without names, selects all. With `short`, only
    the short ones."""
    for name in names:
        if not any(case.name == name or case.name.startswith(f"{name}.") for case in cases):
            raise Failed(f"there is no case {name}; --list names them")
    return [
        case
        for case in cases
        if (case.short or not short)
        and (not names or any(case.name == name or case.name.startswith(f"{name}.") for name in names))
    ]
