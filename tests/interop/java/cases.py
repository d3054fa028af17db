"""The cases of Apache Kafka's own programs. Importing the modules registers them."""

import java.admin  # noqa: F401
import java.compat  # noqa: F401
import java.connect  # noqa: F401
import java.console  # noqa: F401
import java.groups  # noqa: F401
import java.kills  # noqa: F401
import java.members  # noqa: F401
import java.offsets_topic  # noqa: F401
import java.streams  # noqa: F401
import java.unsupported  # noqa: F401
