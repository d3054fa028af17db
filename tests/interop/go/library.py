"""franz-go, as `go.mod` and `go.sum` pin it."""

from pathlib import Path

from clients.programs import Kafka, step, words
from harness.context import Context

HERE = Path(__file__).resolve().parent


def modules(ctx: Context) -> dict[str, str]:
    """Returns environment variables that make Go keep modules in the cache."""
    return {"GOMODCACHE": str(ctx.cache.root / "go-modules"), "GOFLAGS": "-modcacherw"}


def client(ctx: Context) -> Kafka:
    """Returns the program of this folder, built once for each version of its sources."""

    def build(into: Path) -> None:
        argv = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", into / "client", "."]
        step("build the franz-go client", argv, cwd=HERE, env=modules(ctx))

    sources = [*sorted(HERE.glob("*.go")), HERE / "go.mod", HERE / "go.sum"]
    program = ctx.cache.directory("go", b"".join(file.read_bytes() for file in sources), build) / "client"
    return Kafka("go", words(lambda word: [program, word]))
