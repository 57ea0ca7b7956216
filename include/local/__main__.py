"""What the Makefile calls: `python -m include.local <command>`; `--help` lists them."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from include.domain.errors import PerennialError, UserMistake
from include.domain.windows import parse
from include.local import processes, stack
from include.settings import SLOTS, Settings, from_env
from include.spec.model_spec import ModelSpec

#: A pipe has no width of its own; tables need one.
console = Console(width=None if sys.stdout.isatty() else 140)


def up(settings: Settings) -> None:
    settings = stack.up(settings, lambda text: console.print(f"[dim]{text} …"))
    links(settings)


def down(settings: Settings) -> None:
    swept = stack.down(settings)
    console.print("the stack is down" + (f" ({swept} orphaned processes were stopped)" if swept else ""))


def status(settings: Settings) -> None:
    running = processes.running(settings.home)
    if not running:
        orphans = processes.marked(settings.home)
        left = f"; {len(orphans)} orphaned processes are left: make down stops them" if orphans else ""
        console.print(f"the stack is down: make up starts it{left}")
        sys.exit(3)
    health = stack.health(settings)
    ports = {"api-server": settings.airflow_port, "mlflow": settings.mlflow_port, "gateway": settings.gateway_port,
             **{name: port for slot in SLOTS for name, port in settings.slot_servers(slot).items()}}  # fmt: skip
    table = Table("process", "port", "state", "health", "memory", box=None)
    for process in running:
        port = ports.get(process.name)
        table.add_row(process.name, str(port or ""), process.state.lower(), health.get(process.name, ""),
                      f"{process.memory / 2**20:.0f} MB")  # fmt: skip
    table.add_row("", "", "", "in all", f"{sum(p.memory for p in running) / 2**20:.0f} MB")
    console.print(table)
    links(settings)


def logs(settings: Settings) -> None:
    files = sorted((settings.home / "logs").glob("*.log"))
    if not files:
        console.print(f"no logs yet in {settings.home / 'logs'}: make up starts the stack")
        sys.exit(3)
    subprocess.run(["tail", "-n", "20", "-F", *map(str, files)], check=False)


def demo(settings: Settings, *, spoiled: bool) -> None:
    from include.local import demo as story

    story.play(settings, console, spoiled=spoiled)
    links(stack.remembered(settings))


def rollback(settings: Settings, model: str) -> None:
    from include.stages.rollout import rollout
    from include.wiring import Parts

    if settings.router == "haproxy" and not (settings.gateway / f"{model}.map").exists():
        raise UserMistake(f"the gateway knows no model named {model!r}; this stack serves {settings.model}")
    rollout.rollback(model, Parts(settings).controls(), "make rollback")
    console.print(f"{model}: all traffic goes to the stable slot")


def champion(settings: Settings, model: str, on: datetime | None) -> None:
    from include.reports import summary
    from include.wiring import Parts

    console.print(summary.reign(model, Parts(settings).ledger(), on or datetime.now(UTC)))


def why(settings: Settings, model: str, at: datetime | None) -> None:
    from include.reports import summary
    from include.wiring import Parts

    console.print(
        summary.why(model, Parts(settings).ledger(), at or datetime.now(UTC)), highlight=False, soft_wrap=True
    )


def expectations(settings: Settings, model: str) -> None:
    from include.spec.loading import find
    from include.stages.data import expectation_suggestions
    from include.wiring import Parts

    spec, parts = find(model, settings.models), Parts(settings)
    sys.stdout.write(f"{expectation_suggestions.propose(spec, parts.tables(spec), parts.records(spec))}\n")


def reproduce(settings: Settings, run: str) -> None:
    from include.local import reproduce as again
    from include.wiring import Parts

    with tempfile.TemporaryDirectory(prefix="reproduce-", dir=settings.home) as folder:
        found = again.reproduce(run, Parts(settings), Path(folder), lambda text: console.print(f"[dim]{text} …"))
    table = Table("", "recorded", "rebuilt", "", box=None)
    for row in found:
        table.add_row(row.name, str(row.recorded)[:18], str(row.rebuilt)[:18], "same" if row.same else "[red]differs")
    console.print(table)
    differing = [row.name for row in found if not row.same]
    console.print(f"run {run}: " + (f"{', '.join(differing)} differ" if differing else "rebuilt to the last bit"))
    sys.exit(1 if differing else 0)


def rebuild(settings: Settings, folder: Path, threads: int) -> None:
    from include.local import reproduce as again
    from include.wiring import Parts

    again.rebuild(folder, threads, Parts(settings))


def k8s(settings: Settings) -> None:
    from include.adapters.kubernetes import Cluster
    from include.local import k8s_check

    table = Table("", "what", "is there", "without it", box=None)
    found = k8s_check.look(Cluster(settings.namespace, settings.kubeconfig))
    for part in found:
        table.add_row("ok" if part.there else "--", part.name, part.said, "" if part.there else part.without)
    console.print(table)
    console.print(f"kubectl apply -k include/manifests/overlays/{k8s_check.overlay(found)}")


def schema(_: Settings) -> None:
    sys.stdout.write(json.dumps(ModelSpec.model_json_schema(), indent=2) + "\n")


def links(settings: Settings) -> None:
    console.print(f"Airflow  {settings.airflow_url}   user admin, password {stack.password(settings)}")
    console.print(f"Model    {settings.airflow_url}/perennial/{settings.model}/")
    console.print(f"Runs     {settings.airflow_url}/dags/{settings.model}.train/runs")
    console.print(f"MLflow   {settings.mlflow_url}/#/models/{settings.model}")
    console.print(f"Gateway  {settings.gateway_url}/predict   its servers and counts {settings.gateway_admin_url}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m include.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    simple: tuple[Callable[[Settings], None], ...] = (up, down, status, logs, schema, k8s)
    for command in simple:
        commands.add_parser(command.__name__).set_defaults(command=command)
    told = commands.add_parser("demo")
    told.add_argument("--spoiled", action="store_true", help="end with a challenger that the gates must reject")
    told.set_defaults(command=demo)
    reign = commands.add_parser("champion")
    reign.add_argument("model")
    reign.add_argument("on", nargs="?", type=parse, default=None, help="a moment, ISO 8601; now when left out")
    reign.set_defaults(command=champion)
    asked = commands.add_parser("why")
    asked.add_argument("model")
    asked.add_argument("at", nargs="?", type=parse, default=None, help="a moment, ISO 8601; now when left out")
    asked.set_defaults(command=why)
    learnt = commands.add_parser("expectations", help="learnt from the first landed windows, as YAML for the spec")
    learnt.add_argument("model")
    learnt.set_defaults(command=expectations)
    back = commands.add_parser("rollback")
    back.add_argument("model")
    back.set_defaults(command=rollback)
    again = commands.add_parser("reproduce")
    again.add_argument("run", help="the MLflow run's id")
    again.set_defaults(command=reproduce)
    half = commands.add_parser("rebuild", help="the half of `reproduce` that the run's own commit does")
    half.add_argument("folder", type=Path)
    half.add_argument("threads", type=int)
    half.set_defaults(command=rebuild)
    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    try:
        command(stack.remembered(from_env()), **arguments)
    except (PerennialError, ValueError) as fault:
        Console(stderr=True).print(f"[red]{fault}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
