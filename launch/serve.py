"""Serves an export over HTTP, in the request format of TensorFlow Serving.

python launch/serve.py --model=exported/pen --port=8501 --record=asked.npz

For labs that do not run TensorFlow Serving. See docs/serving.md for the requests.
"""

import importlib.util

from common import checks, program
from absl import flags

from nppac_tf.errors import UserError

flags.DEFINE_string("model", None, "Folder of an export of any format.")
flags.DEFINE_string("name", None, "Name of the model in addresses (default: that of the folder).")
flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
flags.DEFINE_integer("port", 8501, "Port to listen on.", 1, 65535)
flags.DEFINE_integer("max_bytes", 2**20, "Largest body of a request.", 1)
flags.DEFINE_float("timeout", 5.0, "Seconds that a request may take.", 0.001)
flags.DEFINE_string("record", None, "New file, ending in .npz, for what was asked and answered.")


def main() -> None:
    path = checks.existing("model")
    if importlib.util.find_spec("aiohttp") is None:
        raise UserError("serving needs aiohttp: pip install 'nppac-tf[serve]'")
    from aiohttp import web

    from nppac_tf.serving import server, shadow_log
    from nppac_tf.serving.runtimes import load_model

    flag = flags.FLAGS
    name = flag.name or path.resolve().name
    log = shadow_log.ShadowLog(flag.record) if flag.record else None
    model = load_model(path)
    for signature in model.signatures:
        model(
            signature, model.zeros(signature)
        )  # The first call compiles; no request waits for it.
    application = server.make_application(model, name, flag.max_bytes, flag.timeout, log)

    def announce(*_: object) -> None:
        print(f"Serving http://{flag.host}:{flag.port}/v1/models/{name}", flush=True)

    try:
        # On Ctrl-C or SIGTERM it finishes the requests that it has.
        web.run_app(
            application,
            host=flag.host,
            port=flag.port,
            print=announce,  # Called once it listens.
            access_log=None,
            shutdown_timeout=flag.timeout,
        )
    finally:
        if log is not None:
            print(f"Recorded {log.save():,} steps in {flag.record}")


if __name__ == "__main__":
    program.run(main)
