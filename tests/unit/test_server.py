"""The HTTP server, with a model that needs no TensorFlow."""

import asyncio
import contextlib
import json
import random
import time

import numpy as np
import pytest

from nppac_tf.demonstrations import load_demonstrations
from nppac_tf.errors import UserError
from nppac_tf.serving.runtimes import Model
from nppac_tf.serving.shadow_log import ShadowLog

pytest.importorskip("aiohttp", reason="the server needs the extra serve")

from aiohttp import test_utils

from nppac_tf.serving import server

GOOD = {"inputs": {"observation": [[1.0, 2.0], [3.0, 4.0]], "threshold": [0.5]}}


class Doubling(Model):
    description = {"task": "arm"}  # noqa: RUF012
    seconds = 0.0

    @property
    def signatures(self):
        return {
            "policy": {"observation": ([None, 2], "float32"), "threshold": ([1], "float32")},
            "mean_action": {"observation": ([None, 2], "float32")},
        }

    def __call__(self, signature, inputs):
        inputs = self.check(signature, inputs)
        time.sleep(self.seconds)
        action = 2 * inputs["observation"]
        if signature == "mean_action":
            return {"action": action}
        return {"action": action, "novelty": np.full(len(action), 0.25, np.float32)}


def serve(talk, model=None, **options):
    """Runs `talk(client)` against a server."""

    async def session():
        application = server.make_application(model or Doubling(), "arm", **options)
        async with test_utils.TestClient(test_utils.TestServer(application)) as client:
            return await talk(client)

    return asyncio.run(session())


async def predict(client, content):
    data = content if isinstance(content, bytes) else json.dumps(content)
    async with client.post("/v1/models/arm:predict", data=data) as response:
        return response.status, await response.json()


def test_requests_are_those_of_tensorflow_serving():
    async def talk(client):
        assert await predict(client, GOOD) == (
            200,
            {"outputs": {"action": [[2.0, 4.0], [6.0, 8.0]], "novelty": [0.25, 0.25]}},
        )
        rows = {"signature_name": "mean_action", "instances": [{"observation": [1, 2]}]}
        assert await predict(client, rows) == (200, {"predictions": [[2.0, 4.0]]})
        rows["instances"] = [[1, 2]]  # One input needs no name.
        assert await predict(client, rows) == (200, {"predictions": [[2.0, 4.0]]})
        columns = {"signature_name": "mean_action", "inputs": [[1, 2]]}
        assert await predict(client, columns) == (200, {"outputs": [[2.0, 4.0]]})
        async with client.get("/v1/models/arm") as response:
            assert (await response.json())["model_version_status"][0]["state"] == "AVAILABLE"
        async with client.get("/v1/models/arm/metadata") as response:
            assert (await response.json())["metadata"]["task"] == "arm"
        async with client.get("/metrics") as response:
            text = await response.text()
            assert 'requests_total{status="200"} 6' in text
            assert "request_seconds_count 4" in text

    serve(talk)


@pytest.mark.parametrize(
    ("content", "status", "complaint"),
    [
        (b"\xff\x00", 400, "the body must be JSON"),
        (b"[" * 100_000, 400, "the body must be JSON"),
        ([], 400, "must be an object with either"),
        (GOOD | {"instances": []}, 400, "must be an object with either"),
        (GOOD | {"signature_name": "other"}, 400, "signature_name must be one of policy"),
        (GOOD | {"signature_name": [1]}, 400, "signature_name must be a string"),
        ({"instances": []}, 400, "instances must be a list of at least one"),
        ({"instances": [{"a": 1}, {"b": 1}]}, 400, "must all have the same names"),
        ({"inputs": {"observation": [[1, 2]]}}, 400, "inputs of policy must be observation, thr"),
        ({"inputs": {"observation": [[1, 2], [3]], "threshold": [1]}}, 400, "must be numbers"),
        ({"inputs": {"observation": [["1", 2]], "threshold": [1]}}, 400, "must be numbers"),
        ({"inputs": {"observation": [[10**400, 2]], "threshold": [1]}}, 400, "must be numbers"),
        ({"inputs": {"observation": [1, 2], "threshold": [1]}}, 400, r"shape ['B', 2]; got [2]"),
        (b" " * 3000, 413, "Request Entity Too Large"),
    ],
)
def test_a_bad_request_gets_one_line(content, status, complaint):
    found, answer = serve(
        lambda client: predict(client, content),
        max_bytes=2000 + 10**5 * (content == b"[" * 100_000),
    )
    assert found == status
    assert complaint in answer["error"]
    assert "\n" not in answer["error"]


def test_random_bodies_are_never_the_servers_fault():
    chooser = random.Random(0)
    values = [None, True, "", "x", 1e400, -1, [], [[]], {}, [1, 2], [[1, 2]], [[[1]]], float("nan")]
    names = ["inputs", "instances", "signature_name", "observation", "threshold", "policy"]

    def any_value(depth):
        if depth and chooser.random() < 0.5:
            return {chooser.choice(names): any_value(depth - 1) for _ in range(3)}
        return chooser.choice(values)

    async def talk(client):
        for number in range(2000):
            if number % 2:
                body = bytearray(json.dumps(GOOD).encode())
                for _ in range(chooser.randrange(1, 9)):
                    body[chooser.randrange(len(body))] = chooser.randrange(256)
                body = bytes(body)
            else:
                body = json.dumps(any_value(3)).encode()
            status, answer = await predict(client, body)
            assert status in (200, 400), (body, answer)

    serve(talk)


def test_a_model_that_takes_too_long_is_given_up():
    model = Doubling()
    model.seconds = 0.5
    status, answer = serve(lambda client: predict(client, GOOD), model, timeout=0.05)
    assert (status, answer) == (503, {"error": "the model did not answer in time"})


def test_what_is_served_is_recorded_as_demonstrations(tmp_path):
    log = ShadowLog(str(tmp_path / "asked.npz"), limit=3)
    serve(lambda client: predict(client, GOOD), record=log)
    log({"observation": [[np.nan, 0.0]]}, {"action": np.zeros((1, 2))})
    serve(lambda client: predict(client, GOOD), record=log)
    assert log.save() == 3
    data = load_demonstrations(str(tmp_path / "asked.npz"))
    np.testing.assert_array_equal(data.observations, [[1, 2], [3, 4], [1, 2]])
    np.testing.assert_array_equal(data.actions, 2 * data.observations)
    assert data.metadata["novelty"] == [0.25] * 3
    with pytest.raises(UserError, match="record must be a new file"):
        ShadowLog(str(tmp_path / "asked.npz"))
    with contextlib.suppress(FileNotFoundError):
        assert ShadowLog(str(tmp_path / "none.npz")).save() == 0
