"""The model server: follows a registry alias, or serves one artifact, over HTTP."""

import argparse
import asyncio
import logging
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from include.online_store.opening import open_store
from include.server.app import App
from include.server.batching import QueueLimits
from include.server.feedback import FeedbackLog
from include.server.http import HttpServer
from include.server.prediction_log import PredictionWriter
from include.server.prometheus import Metrics
from include.server.servable_model import LoadOptions, VersionReference
from include.server.service import RequestLimits, ScoringService
from include.server.slot import Slot
from include.server.version_source import FixedVersion, RegistryAlias, VersionSource

if TYPE_CHECKING:
    import grpc

#: The alias that a slot follows if none is named; every other slot follows the champion.
ALIASES = {"canary": "challenger", "shadow": "shadow"}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options; without `argv`, those of this process."""
    parser = argparse.ArgumentParser(prog="python -m include.server", description=__doc__)
    add = parser.add_argument
    add("--slot", required=True, help="this process's name: stable, canary, shadow")
    add("--model", required=True, help="the registered model's name")
    add("--alias", help="the registry alias to follow; by default champion, for canary challenger, for shadow shadow")
    add("--registry", help="the MLflow server's URL")
    add("--artifact", help="serve this manifest.json instead of an alias")
    add("--digest", help="the SHA-256 of --artifact; without it the manifest itself is not checked")
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--socket", type=Path, help="listen at this Unix socket too, for callers on this machine")
    add("--grpc-port", type=int, help="serve the inference protocol over gRPC too, at this port (needs grpcio)")
    add("--log", type=Path, required=True, help="folder of the prediction log: <log>/<model>/<slot>/")
    add("--store", help="the online store of aggregates: a folder or redis://host:port/number")
    add("--threads", type=int, default=1, help="threads of one inference")
    add("--max-requests", type=int, default=RequestLimits.max_in_flight, help="requests in flight; with more come 503s")
    add("--max-queue", type=int, default=QueueLimits.max_rows, help="rows that wait; with more come 503s")
    add("--deadline", type=float, default=QueueLimits.max_seconds, help="seconds a row may wait; then 503")
    add("--cache", type=int, default=0, help="rows whose scores are kept for callers who send them again")
    add("--max-rows", type=int, default=RequestLimits.max_rows, help="rows of one request")
    add("--max-body", type=int, default=RequestLimits.max_body_bytes, help="bytes of one request")
    add("--body-seconds", type=float, default=RequestLimits.body_timeout, help="time to send a body")
    drain = "seconds to serve on, not ready, after SIGTERM, so that the gateway sees it"
    add("--drain", type=float, default=1.0, help=drain)
    add("--token-file", type=Path, help="file with the token that POST requests must bear")
    add("--lenient", action="store_true", help="drop unknown columns instead of refusing the row")
    options = parser.parse_args(argv)
    if (options.registry is None) == (options.artifact is None):
        parser.error("give either --registry or --artifact")
    return options


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; then drain, and write what is logged."""
    service = _service(options)
    app = App(service, FeedbackLog(options.log / options.model / "feedback"))
    server = HttpServer(app, service.limits.max_body_bytes, service.limits.body_timeout)
    grpc_server = await _start_grpc(service, options)
    stop_signal = asyncio.create_task(_stop_signal())
    following = asyncio.create_task(service.slot.follow())
    serving = asyncio.create_task(server.serve(options.host, options.port, options.socket))
    ended, _ = await asyncio.wait((following, serving, stop_signal), return_when=asyncio.FIRST_COMPLETED)
    service.slot.draining = True
    following.cancel()
    if stop_signal in ended:
        await asyncio.sleep(options.drain)
    serving.cancel()
    await asyncio.wait({serving})
    if grpc_server is not None:
        await grpc_server.stop(options.body_seconds)
    await asyncio.to_thread(service.log.close)
    for task in ended:
        task.result()


def _service(options: argparse.Namespace) -> ScoringService:
    metrics = Metrics(options.slot, options.model)
    folder = options.log / options.model / options.slot
    token = options.token_file.read_text(encoding="utf-8").strip() if options.token_file else None
    slot = Slot(
        options.slot,
        options.model,
        _version_source(options),
        options=LoadOptions(options.max_rows, options.threads, options.lenient),
        queue=QueueLimits(options.max_queue, options.deadline),
        cache_rows=options.cache,
        metrics=metrics,
        state_file=folder / "serving.json",
        open_store=partial(open_store, options.store, options.model) if options.store else None,
    )
    limits = RequestLimits(options.max_body, options.max_requests, options.body_seconds, options.max_rows, token)
    return ScoringService(slot, PredictionWriter(folder, options.slot, metrics), metrics, limits)


async def _stop_signal() -> None:
    """Return after SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    await stop.wait()


async def _start_grpc(service: ScoringService, options: argparse.Namespace) -> "grpc.aio.Server | None":
    """Start the gRPC server if a port is named; its packages are needed only then."""
    if options.grpc_port is None:
        return None
    from include.server import grpc_service

    return await grpc_service.start(service, f"{options.host}:{options.grpc_port}")


def _version_source(options: argparse.Namespace) -> VersionSource:
    if options.artifact is None:
        alias = options.alias or ALIASES.get(options.slot, "champion")
        return RegistryAlias(options.registry, options.model, alias)
    return FixedVersion(VersionReference("0", str(Path(options.artifact).resolve()), options.digest))


def main() -> int:
    """Run the server with the process's arguments; an address in use or a log that cannot be made is told in one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        uvloop.run(serve(parse_arguments()))
    except OSError as error:
        sys.exit(f"the server cannot run: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
