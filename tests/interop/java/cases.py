"""The cases of Apache Kafka's own programs."""

import java.topics  # noqa: F401  (importing registers)
