"""Independent streams of random numbers from one seed."""

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str) -> int:
    """Derives a seed in [0, 2^31) for a purpose such as "replay" from a seed."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])
    return int(sequence.generate_state(1)[0] >> 1)
