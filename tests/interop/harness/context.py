"""The context of a case: a scratch directory, brokers, processes and packages. All processes end with the case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import itertools
from pathlib import Path
import threading

from harness.broker import Broker
from harness.cases import ROOT
from harness.expect import Failed
from harness.fetch import Cache
from harness.proc import DEADLINE, Process, Result


@dataclass(frozen=True)
class Settings:
    """Settings from the command line."""

    program: Path
    cache: Cache
    short: bool


class Context:
    """The context of a case."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self.settings = settings
        self.scratch = scratch
        self.notes: list[str] = []
        self._stopping = False
        self._numbers = itertools.count(1)
        self._processes: list[Process] = []
        self._brokers: list[Broker] = []
        self._alone = threading.Lock()

    @property
    def cache(self) -> Cache:
        """Returns the cache of downloaded packages."""
        return self.settings.cache

    @property
    def repository(self) -> Path:
        """Returns the root of the repository."""
        return ROOT.parent.parent

    @property
    def short(self) -> bool:
        """Returns whether this is the short version, in which loops are also shorter."""
        return self.settings.short

    def note(self, text: str) -> None:
        """Adds a remark to the report."""
        self.notes.append(text)

    def broker(self, *flags: str, also: Sequence[str] = (), data: Path | None = None) -> Broker:
        """Starts a broker with these flags of `highwater start`, in addition to those for its addresses and directory.

        `also` are additional addresses of its listener for Kafka clients. `data` is its data directory, by default one in the scratch directory.
        """
        broker = Broker(
            self.settings.program,
            data or self.directory(f"broker-{len(self._brokers) + 1}") / "data",
            lambda name, argv: self.start(argv, name=name),
            flags,
            also,
        )
        self._brokers.append(broker)
        return broker

    def directory(self, name: str) -> Path:
        """Creates an empty directory in the scratch directory."""
        path = self.scratch / name
        path.mkdir()
        return path

    def file(self, name: str, text: str) -> Path:
        """Creates a file in the scratch directory."""
        path = self.scratch / name
        path.write_text(text)
        return path

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Starts a command in the background. It is killed when the case ends."""
        log = self.scratch / f"{next(self._numbers):03}-{name or Path(argv[0]).name}.out"
        with self._alone:
            if self._stopping:
                raise Failed("the run was interrupted")
            process = Process(argv, log, env=env, cwd=cwd)
            self._processes.append(process)
        return process

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        name: str | None = None,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        deadline: float = DEADLINE,
        codes: Sequence[int] | None = (0,),
    ) -> Result:
        """Runs a command to completion. An exit code not in `codes` fails the case; `None` allows all codes."""
        process = self.start(argv, name=name, env=env, cwd=cwd)
        if stdin:
            process.write(stdin)
        process.close_input()
        return process.wait(deadline, codes)

    def check_brokers(self) -> None:
        """Checks that all brokers that the case has not stopped are running."""
        for broker in self._brokers:
            broker.check_alive()

    def end(self) -> None:
        """Kills all running processes. No more can be started afterwards."""
        with self._alone:
            self._stopping = True
            processes = list(self._processes)
        for process in reversed(processes):
            process.kill()
