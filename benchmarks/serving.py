"""Measures the HTTP server on this machine: bad requests, then requests at a steady rate.

    python -m benchmarks.serving --model=exported/pen_onnx --bad=10000 --rate=200 --seconds=3600

A bad body is random JSON, or a good request with random bytes changed, which is sometimes still
good. The server must answer each with a status below 500, and must not grow. Latencies count from
when a request was due, not from when it was sent: a request that waits for the one before it is
late.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import aiohttp
import numpy as np

_SERVER = pathlib.Path(__file__).parents[1] / "launch" / "serve.py"
_VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    1e400,
    -1,
    [],
    [[]],
    {},
    [1, 2],
    [[1, 2]],
    [[[1]]],
    float("nan"),
)
_NAMES = ("inputs", "instances", "signature_name", "observation", "threshold", "policy")
_WARM_UP = 1000


def bad_body(chooser: random.Random, good: bytes) -> bytes:
    """A body that is most likely no request."""
    if chooser.random() < 0.5:
        return json.dumps(_any_value(chooser, 3)).encode()
    body = bytearray(good)
    for _ in range(chooser.randrange(1, 9)):
        body[chooser.randrange(len(body))] = chooser.randrange(256)
    return bytes(body)


def _any_value(chooser: random.Random, depth: int) -> Any:
    if depth and chooser.random() < 0.5:
        return {chooser.choice(_NAMES): _any_value(chooser, depth - 1) for _ in range(3)}
    return chooser.choice(_VALUES)


@contextlib.contextmanager
def served(model: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a process of its own, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(_SERVER), f"--model={model}", "--name=m", f"--port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            sys.exit("error: the server did not start")
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


class Client:
    """Asks a server over one connection, one request after the other. Use it with `async with`.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/models/m"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def metadata(self) -> Any:
        """What the server says of its model."""
        async with self._session.get(f"{self._url}/metadata") as answer:
            return await answer.json()

    async def predict(self, body: bytes) -> int:
        """The status of a prediction; 0 if the connection broke."""
        try:
            async with self._session.post(f"{self._url}:predict", data=body) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ClientError:
            return 0


async def good_bodies(client: Client) -> list[bytes]:
    """Requests for the action with everything that the model has, at random observations."""
    content = await client.metadata()
    signatures, rng = content["metadata"]["inputs"], np.random.default_rng(0)
    name = next(name for name in ("policy", "action_or_prior", "mean_action") if name in signatures)
    bodies = []
    for _ in range(100):
        inputs = {
            key: rng.normal(size=[size or 1 for size in tensor["shape"] or []]).round(4).tolist()
            for key, tensor in signatures[name].items()
        }
        bodies.append(json.dumps({"signature_name": name, "inputs": inputs}).encode())
    return bodies


def megabytes(process: subprocess.Popen[str]) -> float:
    """Resident memory of a process."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """Processor time that a process has used."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


async def send_bad(process: subprocess.Popen[str], port: int, number: int) -> None:
    """Sends bad requests one after the other, and prints statuses and memory."""
    chooser, before = random.Random(0), 0.0
    statuses: Counter[int] = Counter()
    async with Client(port) as client:
        good = (await good_bodies(client))[0]
        for sent in range(number):
            if sent == min(_WARM_UP, number - 1):
                before = megabytes(process)
            statuses[await client.predict(bad_body(chooser, good))] += 1
    print(f"{number:,} bad requests: statuses {dict(sorted(statuses.items()))}")
    print(f"memory {before:.1f} MB after {_WARM_UP:,}, {megabytes(process):.1f} MB at the end")


async def send_steadily(
    process: subprocess.Popen[str], port: int, rate: float, seconds: float, connections: int
) -> None:
    """Sends good requests at a rate, and prints statuses, latencies and memory."""
    async with Client(port) as client:
        bodies = await good_bodies(client)
    total = int(rate * seconds)
    statuses: Counter[int] = Counter()
    latencies = np.full(total, np.nan)
    due = iter(range(total))
    before, used = megabytes(process), processor_seconds(process)
    start = time.perf_counter() + 0.5

    async def work() -> None:
        async with Client(port) as client:
            for number in due:
                when = start + number / rate
                await asyncio.sleep(max(0.0, when - time.perf_counter()))
                statuses[await client.predict(bodies[number % len(bodies)])] += 1
                latencies[number] = time.perf_counter() - when

    await asyncio.gather(*(work() for _ in range(connections)))
    took = time.perf_counter() - start
    median, tail = 1000 * np.quantile(latencies, [0.5, 0.999])
    print(
        f"{total:,} requests in {took:.0f} s ({total / took:.0f} per second): "
        f"statuses {dict(sorted(statuses.items()))}"
    )
    print(
        f"latency: median {median:.2f} ms, 99.9 % {tail:.1f} ms, "
        f"largest {1000 * latencies.max():.1f} ms"
    )
    milliseconds = 1000 * (processor_seconds(process) - used) / total
    print(f"the server took {milliseconds:.2f} ms of processor time per request")
    print(f"memory {before:.1f} MB at first, {megabytes(process):.1f} MB at the end")


def main() -> None:
    """Starts the server and measures it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    add = parser.add_argument
    add("--model", required=True, help="folder of an export")
    add("--bad", type=int, default=10_000, help="bad requests (default: 10000; 0 for none)")
    add("--rate", type=float, default=200.0, help="good requests per second (default: 200)")
    add("--seconds", type=float, default=60.0, help="how long (default: 60; 0 for not at all)")
    add("--connections", type=int, default=8, help="of the good requests (default: 8)")
    settings = parser.parse_args()
    with served(settings.model) as (process, port):
        if settings.bad:
            asyncio.run(send_bad(process, port, settings.bad))
        if settings.seconds:
            asyncio.run(
                send_steadily(process, port, settings.rate, settings.seconds, settings.connections)
            )


if __name__ == "__main__":
    main()
