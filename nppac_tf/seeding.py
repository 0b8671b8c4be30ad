"""Independent streams of random numbers from one seed."""

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2^31) for one purpose, such as "replay"; equal arguments give equal seeds."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])
    return int(sequence.generate_state(1)[0] >> 1)
