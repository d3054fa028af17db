"""kafkajs, as `package-lock.json` pins it."""

from pathlib import Path
import shutil

from clients.programs import Kafka, step, words
from harness.context import Context

HERE = Path(__file__).resolve().parent


def client(ctx: Context) -> Kafka:
    """Returns the programs of this folder, with packages from the cache."""

    def install(into: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, into)
        step("install kafkajs", ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=into)

    packages = ctx.cache.directory("node", (HERE / "package-lock.json").read_bytes(), install) / "node_modules"
    programs = words(lambda word: ["node", HERE / f"{word}.js"])
    # The packages with its codecs for LZ4 and Zstandard are unmaintained, and their native parts do not build everywhere.
    return Kafka("node", programs, ("none", "gzip", "snappy"), null_headers=False, env={"NODE_PATH": str(packages)})
