"""ClientCompatibilityTest, which Kafka's system tests run against all versions of the broker."""

from harness.cases import case
from harness.context import Context
from harness.expect import contains
from java.kafka import NEW, OLD, Kafka


def compatibility(ctx: Context, version: str) -> None:
    """Runs it for the features that Highwater has: all except access control lists."""
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("compat", 1)
    features = {
        "create-topics-supported": "True",
        "offsets-for-times-supported": "True",
        "cluster-id-supported": "True",
        "expect-record-too-large-exception": "False",
        "describe-acls-supported": "True",
        "describe-configs-supported": "True",
        "idempotent-producer-supported": "True",
    }
    flags = [word for name, value in features.items() for word in (f"--{name}", value)]
    tester = Kafka(ctx, kafka.broker, version)
    said = tester.tool("client-compatibility-test", "--topic", "compat", "--num-cluster-nodes", "1", *flags)
    contains("its verdict", said.out, "SUCCESS.")


@case("java.compatibility", "ClientCompatibilityTest of 4.3", short=True, needs=("java",))
def new(ctx: Context) -> None:
    compatibility(ctx, NEW)


@case("java.compatibility-old", "ClientCompatibilityTest of 3.9", needs=("java",))
def old(ctx: Context) -> None:
    compatibility(ctx, OLD)
