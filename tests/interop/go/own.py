"""franz-go's own integration tests, from the module version in `go.mod`."""

from pathlib import Path
import shutil

from clients.programs import step
from go.library import HERE, modules
from harness.context import Context
from harness.broker import Broker

# These require the topic __consumer_offsets, transactions, share groups or SASL.
SKIPPED = "TestConsumeRegex|Test848RegexBrokerResolves|TestTxn|TestShare|SCRAM"


def run_own_tests(ctx: Context, broker: Broker, records: int) -> None:
    """Runs the tests of package kgo, which take the broker's address from the environment. `records` is the number of records of each pipeline."""
    env = modules(ctx)

    def build(into: Path) -> None:
        step("download franz-go", ["go", "mod", "download"], cwd=HERE, env=env)
        listed = step("find franz-go", ["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "github.com/twmb/franz-go"], cwd=HERE, env=env)
        # Copy the module, because some tests need its files, and the module cache must not be modified.
        source = into / "franz-go"
        shutil.copytree(listed.strip(), source)
        package = source / "pkg/kgo"
        step("build franz-go's tests", ["go", "test", "-c", "-o", into / "kgo.test", "."], cwd=package, env=env)

    directory = ctx.cache.directory("go-tests", (HERE / "go.sum").read_bytes(), build)
    ctx.run(
        [directory / "kgo.test", "-test.v", "-test.timeout", "9m", "-test.skip", SKIPPED],
        name="kgo-tests",
        env={"KGO_SEEDS": broker.kafka, "KGO_TEST_RF": "1", "KGO_TEST_RECORDS": str(records)},
        cwd=directory / "franz-go/pkg/kgo",
        deadline=600,
    )
