"""The command line, and the runner of the cases."""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import json
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from harness.cases import ROOT, Case, load, select
from harness.context import Context, Settings
from harness.expect import Failed, Skipped
from harness.fetch import Cache, default_cache


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/interop/run", description="Runs Kafka clients and tools against a broker."
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="a case such as java.topics, or a group of cases such as java")
    parser.add_argument("--short", action="store_true", help="run only the cases that .ci/run runs")
    parser.add_argument("--list", action="store_true", help="print the cases with descriptions, and exit")
    parser.add_argument("--broker", type=Path, metavar="PATH", help="the program to test [default: build one in release mode]")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=default_cache(),
        help="directory for downloaded packages, also HIGHWATER_INTEROP_CACHE [default: %(default)s]",
    )
    parser.add_argument("--keep", action="store_true", help="also keep the scratch directories of cases that pass")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of concurrent cases [default: 1]")
    parser.add_argument(
        "--skip-missing", action="store_true", help="skip cases whose requirements, such as Go, are not installed"
    )
    return parser.parse_args(argv)


def build() -> Path:
    """Builds the program from this tree, and returns its path."""
    repository = ROOT.parent.parent
    cargo = ["cargo", "build", "--release", "--locked", "--bin", "highwater"]
    if subprocess.run(cargo, cwd=repository, check=False).returncode != 0:
        raise Failed("cannot build the broker; give an existing program with --broker")
    metadata = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=repository, check=True, capture_output=True
    )
    return Path(json.loads(metadata.stdout)["target_directory"]) / "release" / "highwater"


class Runner:
    """Runs cases, prints their results, and counts them."""

    def __init__(self, options: argparse.Namespace, program: Path, scratch: Path) -> None:
        self._settings = Settings(program, Cache(options.cache.resolve()), options.short)
        self._options = options
        self._scratch = scratch
        self._alone = threading.Lock()
        self._running: list[Context] = []
        self._interrupted = False
        self.counts = {"ok": 0, "FAILED": 0, "skipped": 0}

    def say(self, verdict: str, case: Case, rest: str) -> None:
        """Prints the result of a case."""
        with self._alone:
            self.counts[verdict] += 1
            print(f"{verdict} {case.name} {rest}", flush=True)

    def run(self, case: Case) -> None:
        """Runs a case."""
        if self._interrupted:
            return
        missing = case.missing()
        if missing:
            self.say("skipped" if self._options.skip_missing else "FAILED", case, missing)
            return
        scratch = self._scratch / case.name
        scratch.mkdir()
        context = Context(self._settings, scratch)
        with self._alone:
            self._running.append(context)
        began = time.monotonic()
        complaint = skipped = None
        try:
            case.body(context)
            context.check_brokers()
        except Skipped as why:
            skipped = str(why)
        except Failed as failed:
            complaint = str(failed)
        except Exception:  # an unexpected error of one case must not stop the others
            complaint = traceback.format_exc()
        finally:
            context.end()
            with self._alone:
                self._running.remove(context)
        took = time.monotonic() - began
        if skipped is not None:
            shutil.rmtree(scratch)
            self.say("skipped", case, skipped)
        elif complaint is None:
            if not self._options.keep:
                shutil.rmtree(scratch)
            self.say("ok", case, "\n    ".join([f"{took:.1f} s", *context.notes]))
        else:
            self.say("FAILED", case, f"{took:.1f} s, kept in {scratch}\n    " + complaint.strip().replace("\n", "\n    "))

    def interrupt(self) -> None:
        """Kills all processes, so that the running cases fail and clean up."""
        self._interrupted = True
        with self._alone:
            running = list(self._running)
        for context in running:
            context.end()


def main(argv: Sequence[str]) -> int:
    """Returns exit code 0 if all cases passed, 1 if one failed, 2 for an invalid command line."""
    options = arguments(argv)
    cases = load()
    try:
        chosen = select(cases, options.cases, options.short)
        if options.list:
            width = max((len(case.name) for case in chosen), default=0)
            for case in chosen:
                print(f"{case.name:{width}}  {case.shows}{' (short)' if case.short else ''}")
            return 0
        program = options.broker.resolve() if options.broker else build()
        if not program.is_file():
            raise Failed(f"there is no program {program}")
    except Failed as failed:
        print(f"tests/interop/run: {failed}", file=sys.stderr)
        return 2

    scratch = Path(tempfile.mkdtemp(prefix="highwater-interop."))
    runner = Runner(options, program, scratch)
    # Worker threads wait for the cases, so that the main thread can be interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        futures = [pool.submit(runner.run, case) for case in chosen]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            runner.interrupt()
            print("interrupted", file=sys.stderr)
    if not any(scratch.iterdir()):
        scratch.rmdir()
    print(", ".join(f"{count} {verdict}" for verdict, count in runner.counts.items()))
    return 0 if runner.counts["ok"] + runner.counts["skipped"] == len(chosen) else 1
