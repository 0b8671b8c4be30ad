"""How many examples hypothesis tries; NPPAC_EXAMPLES=2000 sets another number for all tests."""

import os

from hypothesis import HealthCheck, settings


def examples(number: int) -> settings:
    """Settings of a property test that tries so many examples in `make test`."""
    return settings(
        max_examples=int(os.environ.get("NPPAC_EXAMPLES", number)),
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
