"""Processes with deadlines. Their output is kept in the scratch directory, and in memory for assertions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import shlex
import signal
import subprocess
import threading
import time
from typing import IO

from harness.expect import Failed

DEADLINE = 300.0
"""Seconds after which a command is considered to hang. No case asserts a duration."""


@dataclass(frozen=True)
class Result:
    """Result of a completed command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Returns the lines of its stdout."""
        return self.out.splitlines()


class Process:
    """A running command. It leads a process group, so that its children can be killed with it."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.log = log
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._err = log.with_suffix(".err")
        with open(self._err, "wb") as err:
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd or log.parent,
                start_new_session=True,
            )
        assert self._child.stdout is not None
        self._reader = threading.Thread(target=self._pump, args=(self._child.stdout,), daemon=True)
        self._reader.start()

    def _pump(self, stream: IO[bytes]) -> None:
        with open(self.log, "wb") as copy:
            for line in stream:
                copy.write(line)
                copy.flush()
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\r\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """Returns the process id."""
        return self._child.pid

    @property
    def lines(self) -> list[str]:
        """Returns the lines printed so far."""
        with self._changed:
            return list(self._lines)

    def lines_from(self, start: int) -> list[str]:
        """Returns the lines from index `start`."""
        with self._changed:
            return self._lines[start:]

    @property
    def errors(self) -> str:
        """Returns its stderr so far."""
        return self._err.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Returns whether it is running."""
        return self._child.poll() is None

    def write(self, text: str) -> None:
        """Writes to its stdin."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(text.encode())
            self._child.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"it ended before reading all its input\n{self.story()}") from None

    def close_input(self) -> None:
        """Closes its stdin."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            pass

    def wait_for(self, what: str, wanted: Callable[[Sequence[str]], object], deadline: float = DEADLINE) -> object:
        """Waits until `wanted`, called with all lines printed so far, returns a true value, and returns that."""
        end = time.monotonic() + deadline
        with self._changed:
            while True:
                ended = self._ended
                found = wanted(self._lines)
                if found:
                    return found
                if ended:
                    raise Failed(f"it ended before this: {what}\n{self.story()}")
                if not self._changed.wait(max(0.0, end - time.monotonic())):
                    raise Failed(f"not within {deadline:.0f} s: {what}\n{self.story()}")

    def wait(self, deadline: float = DEADLINE, codes: Sequence[int] | None = (0,)) -> Result:
        """Waits for its end. An exit code not in `codes` fails the case; `None` allows all codes."""
        try:
            code = self._child.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"it did not end within {deadline:.0f} s\n{self.story()}") from None
        self._reader.join(deadline)
        result = Result(code, "".join(line + "\n" for line in self.lines), self.errors)
        if codes is not None and code not in codes:
            raise Failed(f"it ended with code {code}, not {' or '.join(map(str, codes))}\n{self.story()}")
        return result

    def signal(self, number: int) -> None:
        """Sends a signal to the process, not to its children."""
        self._child.send_signal(number)

    def stop(self) -> Result:
        """Sends SIGTERM, and waits for its end. Not SIGINT, which is ignored if the run is in the background of a shell."""
        self.signal(signal.SIGTERM)
        return self.wait(codes=None)

    def kill(self) -> None:
        """Kills it and its children with SIGKILL, and waits for its end."""
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._child.wait()
        self._reader.join(5)
        self.close_input()

    def story(self) -> str:
        """Returns the command and the end of its output, for error messages."""
        out, err = ("\n".join(line[:300] for line in lines[-20:]) for lines in (self._lines, self.errors.splitlines()))
        return f"command: {shlex.join(self.argv)}\n--- stdout ({self.log})\n{out}\n--- stderr ({self._err})\n{err}"
