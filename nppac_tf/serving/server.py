"""A small HTTP server for exports, with the request format of TensorFlow Serving.

For labs that do not run TensorFlow Serving; it answers one request at a time. With NAME the model:

- `GET /v1/models/NAME`: health. `GET /v1/models/NAME/metadata`: the description and signatures.
- `POST /v1/models/NAME:predict`: `{"signature_name": ..., "inputs": {...}}` gives
  `{"outputs": {...}}` (columns), and `{"instances": [{...}, ...]}` gives `{"predictions": [...]}`
  (rows). A bad request gets status 400 and `{"error": "one line"}`.
- `GET /metrics`: counts and latencies in the text format of Prometheus.

Numbers that are not finite are `NaN` and `Infinity`, in requests too, as in TensorFlow Serving.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from aiohttp import web

from nppac_tf.errors import UserError
from nppac_tf.serving.runtimes import Arrays, Model

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
Record = Callable[[Arrays, Arrays], None]


def make_application(
    model: Model,
    name: str,
    max_bytes: int = 2**20,
    timeout: float = 5.0,
    record: Record | None = None,
) -> web.Application:
    """Makes the server.

    Args:
        model: A loaded export.
        name: Of the model, in the addresses.
        max_bytes: Largest body of a request; a larger one gets status 413.
        timeout: Seconds after which a request gets status 408 or, while the model runs, 503.
        record: Called with the inputs and outputs of each answer.
    """
    default = "serving_default" if "serving_default" in model.signatures else "policy"
    executor = concurrent.futures.ThreadPoolExecutor(1)
    statuses: Counter[int] = Counter()
    latency = _Histogram()

    def answer(body: bytes) -> dict[str, Any]:
        signature, inputs, rows = _parse(body, default)
        if signature not in model.signatures:
            raise UserError(
                f"signature_name must be one of {', '.join(model.signatures)}; got {signature!r}"
            )
        outputs = model(signature, inputs)
        if record is not None:
            record(inputs, outputs)
        lists = {key: value.tolist() for key, value in outputs.items()}
        if not rows:
            return {"outputs": lists if len(lists) > 1 else next(iter(lists.values()))}
        if len(lists) == 1:
            return {"predictions": next(iter(lists.values()))}
        columns = zip(*lists.values(), strict=True)
        return {"predictions": [dict(zip(lists, row, strict=True)) for row in columns]}

    async def predict(request: web.Request) -> web.Response:
        started = time.perf_counter()
        try:
            body = await asyncio.wait_for(request.read(), timeout)
        except TimeoutError:
            return _error(408, "the request did not arrive in time")
        work = asyncio.get_running_loop().run_in_executor(executor, answer, body)
        try:
            content = await asyncio.wait_for(work, timeout)
        except TimeoutError:
            return _error(503, "the model did not answer in time")
        except UserError as error:
            return _error(400, str(error))
        latency.add(time.perf_counter() - started)
        return web.json_response(content)

    async def health(request: web.Request) -> web.Response:
        version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}
        return web.json_response({"model_version_status": [version]})

    async def metadata(request: web.Request) -> web.Response:
        signatures = {
            key: {part: {"shape": shape, "dtype": dtype} for part, (shape, dtype) in inputs.items()}
            for key, inputs in model.signatures.items()
        }
        return web.json_response(
            {
                "model_spec": {"name": name, "version": "1"},
                "metadata": model.description | {"inputs": signatures},
            }
        )

    async def metrics(request: web.Request) -> web.Response:
        lines = [f'requests_total{{status="{key}"}} {count}' for key, count in statuses.items()]
        return web.Response(text="\n".join([*lines, *latency.lines()]) + "\n")

    @web.middleware
    async def in_one_line(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = _error(error.status, error.reason)
        statuses[response.status] += 1
        return response

    async def stop(application: web.Application) -> None:
        executor.shutdown()

    application = web.Application(client_max_size=max_bytes, middlewares=[in_one_line])
    application.on_cleanup.append(stop)
    path = f"/v1/models/{name}"
    application.add_routes(
        [
            web.get(path, health),
            web.get(f"{path}/metadata", metadata),
            web.post(f"{path}:predict", predict),
            web.get("/metrics", metrics),
        ]
    )
    return application


class _Histogram:
    def __init__(self) -> None:
        self._counts, self._total, self._sum = [0] * len(_BUCKETS), 0, 0.0

    def add(self, seconds: float) -> None:
        self._total += 1
        self._sum += seconds
        for index, bound in enumerate(_BUCKETS):
            self._counts[index] += seconds <= bound

    def lines(self) -> list[str]:
        bounds = [*map(str, _BUCKETS), "+Inf"]
        counts = [*self._counts, self._total]
        name = "request_seconds"
        return [
            *(f'{name}_bucket{{le="{b}"}} {n}' for b, n in zip(bounds, counts, strict=True)),
            f"{name}_sum {self._sum:.6f}",
            f"{name}_count {self._total}",
        ]


def _parse(body: bytes, default: str) -> tuple[str, Arrays, bool]:
    """Signature, inputs, and whether they came in rows."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("the body must be JSON") from None
    if not isinstance(content, dict) or ("inputs" in content) == ("instances" in content):
        raise UserError('the body must be an object with either "inputs" or "instances"')
    signature = content.get("signature_name", default)
    if not isinstance(signature, str):
        raise UserError("signature_name must be a string")
    rows = "instances" in content
    inputs = content["instances" if rows else "inputs"]
    if rows:
        if not isinstance(inputs, list) or not inputs:
            raise UserError("instances must be a list of at least one")
        if isinstance(inputs[0], dict):
            if any(not isinstance(row, dict) or row.keys() != inputs[0].keys() for row in inputs):
                raise UserError("instances must all have the same names")
            inputs = {key: [row[key] for row in inputs] for key in inputs[0]}
    if not isinstance(inputs, dict):
        inputs = {"observation": inputs}
    return signature, {key: _array(key, value) for key, value in inputs.items()}, rows


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{name:.40} must be numbers in lists of equal lengths")
    return array


def _error(status: int, reason: str) -> web.Response:
    return web.json_response({"error": " ".join(reason.split())}, status=status)
