"""What a case gets: a scratch directory, brokers, processes, packages. Everything it starts ends with it."""

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
    """What the command line says."""

    program: Path
    cache: Cache
    short: bool


class Context:
    """The surroundings of one case."""

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
        """Fetched packages."""
        return self.settings.cache

    @property
    def repository(self) -> Path:
        """The root of the tree that these cases belong to."""
        return ROOT.parent.parent

    @property
    def short(self) -> bool:
        """Whether the short version runs: then loops are shorter, too."""
        return self.settings.short

    def note(self, text: str) -> None:
        """Something measured or found, for the report; nothing depends on it."""
        self.notes.append(text)

    def broker(self, *flags: str, also: Sequence[str] = ()) -> Broker:
        """A broker of the case's own, with these flags of `highwater start` beside those that place it.

        `also` are further addresses on which it listens for Kafka clients.
        """
        broker = Broker(
            self.settings.program,
            self.directory(f"broker-{len(self._brokers) + 1}"),
            lambda name, argv: self.start(argv, name=name),
            flags,
            also,
        )
        self._brokers.append(broker)
        return broker

    def directory(self, name: str) -> Path:
        """An empty directory in the scratch directory."""
        path = self.scratch / name
        path.mkdir()
        return path

    def file(self, name: str, text: str) -> Path:
        """A file in the scratch directory."""
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
        """Starts a command that goes on in the background; it is killed when the case ends."""
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
        """Runs a command to its end. An exit code that is not among `codes` fails the case; `None` allows all."""
        process = self.start(argv, name=name, env=env, cwd=cwd)
        if stdin:
            process.write(stdin)
        process.close_input()
        return process.wait(deadline, codes)

    def check_brokers(self) -> None:
        """Whether the brokers that the case has not stopped still run."""
        for broker in self._brokers:
            broker.check_alive()

    def end(self) -> None:
        """Kills what still runs; nothing can be started afterwards."""
        with self._alone:
            self._stopping = True
            processes = list(self._processes)
        for process in reversed(processes):
            process.kill()
