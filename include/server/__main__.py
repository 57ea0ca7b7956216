"""The model server: follows a registry alias, or serves one artifact, over HTTP."""

import argparse
import asyncio
import logging
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from include.online_store.opening import open_store
from include.server.app import App
from include.server.batching import Queue
from include.server.feedback import Feedback
from include.server.http import Server
from include.server.log import PredictionLog
from include.server.metrics import Metrics
from include.server.model import Limits, Named
from include.server.service import Bounds, Service
from include.server.slot import Slot
from include.server.source import Alias, Fixed

#: What a slot follows unless it is told; every other one follows the champion.
ALIASES = {"canary": "challenger", "shadow": "shadow"}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m include.server", description=__doc__)
    parser.add_argument("--slot", required=True, help="this process's name: stable, canary, shadow")
    parser.add_argument("--model", required=True, help="the registered model's name")
    parser.add_argument(
        "--alias", help="the registry alias to follow: champion, of canary challenger, of shadow shadow"
    )
    parser.add_argument("--registry", help="the MLflow server's URL")
    parser.add_argument("--artifact", help="serve this manifest.json instead of an alias")
    parser.add_argument("--digest", help="the SHA-256 of --artifact; without it the manifest itself is not checked")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--socket", type=Path, help="listen at this Unix socket too, for callers on this machine")
    parser.add_argument("--grpc-port", type=int, help="speak the inference protocol over gRPC too, here (needs grpcio)")
    parser.add_argument("--log", type=Path, required=True, help="folder of the prediction log: <log>/<model>/<slot>/")
    parser.add_argument("--store", help="the online store of aggregates: a folder or redis://host:port/number")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference")
    parser.add_argument("--max-requests", type=int, default=Bounds.requests, help="under way at once; more get 503")
    parser.add_argument("--max-queue", type=int, default=Queue.rows, help="rows that wait; with more come 503s")
    parser.add_argument("--deadline", type=float, default=Queue.seconds, help="seconds a row may wait; then 503")
    parser.add_argument("--cache", type=int, default=0, help="rows whose scores are kept for those who ask again")
    parser.add_argument("--max-rows", type=int, default=Bounds.rows, help="rows of one request")
    parser.add_argument("--max-body", type=int, default=Bounds.body, help="bytes of one request")
    parser.add_argument("--body-seconds", type=float, default=Bounds.seconds, help="time to send a body")
    parser.add_argument("--drain", type=float, default=1.0,
                        help="seconds to serve on, not ready, after SIGTERM, so that the gateway sees it")  # fmt: skip
    parser.add_argument("--token-file", type=Path, help="file with the token that POST requests must bear")
    parser.add_argument("--lenient", action="store_true", help="drop unknown columns instead of refusing the row")
    options = parser.parse_args(given)
    if (options.registry is None) == (options.artifact is None):
        parser.error("give either --registry or --artifact")
    return options


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; then drain, and write what is logged."""
    service = _service(options)
    app = App(service, Feedback(options.log / options.model / "feedback"))
    server = Server(app, service.bounds.body, service.bounds.seconds)
    rpc = await _rpc(service, options)
    stopped = asyncio.create_task(_told_to_stop())
    watching = asyncio.create_task(service.slot.watch())
    serving = asyncio.create_task(server.serve(options.host, options.port, options.socket))
    done, _ = await asyncio.wait((watching, serving, stopped), return_when=asyncio.FIRST_COMPLETED)
    service.slot.draining = True
    watching.cancel()
    if stopped in done:
        await asyncio.sleep(options.drain)
    serving.cancel()
    await asyncio.wait({serving})
    if rpc is not None:
        await rpc.stop(options.body_seconds)
    await asyncio.to_thread(service.log.close)
    for task in done:
        task.result()


def _service(options: argparse.Namespace) -> Service:
    """The slot, its log and its bounds, put together."""
    metrics = Metrics(options.slot, options.model)
    folder = options.log / options.model / options.slot
    limits = Limits(options.max_rows, options.threads, options.lenient)
    token = options.token_file and options.token_file.read_text(encoding="utf-8").strip()
    bounds = Bounds(options.max_body, options.max_requests, options.body_seconds, options.max_rows, token)
    queue = Queue(options.max_queue, options.deadline)
    slot = Slot(options.slot, options.model, _source(options), limits=limits, queue=queue, cached=options.cache,
                metrics=metrics, memory=folder / "serving.json",
                open_store=options.store and partial(open_store, options.store, options.model))  # fmt: skip
    return Service(slot, PredictionLog(folder, options.slot, metrics), metrics, bounds)


async def _told_to_stop() -> None:
    stopped = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stopped.set)
    await stopped.wait()


async def _rpc(service: Service, options: argparse.Namespace) -> Any:
    """The gRPC server, where one is asked for; else its packages need not be there."""
    if options.grpc_port is None:
        return None
    from include.server import rpc

    return await rpc.start(service, f"{options.host}:{options.grpc_port}")


def _source(options: argparse.Namespace) -> Alias | Fixed:
    if options.artifact is None:
        return Alias(options.registry, options.model, options.alias or ALIASES.get(options.slot, "champion"))
    return Fixed(Named("0", str(Path(options.artifact).resolve()), options.digest))


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        uvloop.run(serve(arguments()))
    except OSError as fault:  # the address is in use, or the folder of the log cannot be made
        sys.exit(f"the server cannot run: {fault}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
