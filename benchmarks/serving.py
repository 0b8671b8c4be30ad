"""The process that a measurement runs in: `python -P serving.py MODULE.py SETTINGS`.

It imports nothing beyond the standard library, so that any Python with any libraries can run it.
MODULE's `prepare(settings)` gives what there is to say (JSON-able) and a chunk of work, or None
where all is said. The first line answered is what it said; then each line read, a number of
seconds, is answered with the rate at which chunks ran for that long.
"""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable


def rate(chunk: Callable[[], int], seconds: float) -> dict[str, float]:
    """How fast chunks of work run.

    Args:
        chunk: Does some work, to its end, and says how many units it was.
        seconds: For which to repeat it; the chunk underway then is finished, and counted.

    Returns:
        "rate", in units per second, and "cores", the processor time per time.
    """
    done = 0
    started, processor = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - started) < seconds:
        done += chunk()
    elapsed = time.perf_counter() - started
    return {"rate": done / elapsed, "cores": (time.process_time() - processor) / elapsed}


def main(path: str, settings: str) -> None:
    """Prepares, and answers until standard input ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # What libraries print is no answer.
        said, chunk = runpy.run_path(path)["prepare"](json.loads(settings))
        print(json.dumps(said), file=answers, flush=True)
        for line in sys.stdin if chunk else ():
            print(json.dumps(rate(chunk, float(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
