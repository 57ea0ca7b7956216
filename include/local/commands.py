"""The verbs of `./perennial`. Each imports what it needs when it is called, so that `--help` answers at once."""

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from include.domain.errors import UserMistake
from include.domain.windows import parse_utc
from include.local import processes, stack
from include.settings import SLOTS, Settings, from_env

#: A pipe has no width of its own; tables need one.
console = Console(width=None if sys.stdout.isatty() else 140)
#: Exit codes: the stack is not running; a rebuilt training differs from its record.
NOT_RUNNING, DIFFERS = 3, 1

app = typer.Typer(
    help="Keep a model in production fresh: start the stack, see what was decided and why, and take a release back.",
    epilog="First steps: perennial demo, then open the links that it prints. Each verb has its own --help.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
k8s = typer.Typer(help="Look at the cluster that KUBECONFIG names.", no_args_is_help=True)
app.add_typer(k8s, name="k8s", rich_help_panel="Elsewhere")

STACK, MODELS, ELSEWHERE = "The stack on this machine", "A model", "Elsewhere"


def model_names(incomplete: str) -> list[str]:
    """Return the names of the specs that begin like this, for the shell's completion."""
    return sorted(path.stem for path in from_env().models.glob(f"{incomplete}*.yaml"))


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="the spec's name, such as flights", autocompletion=model_names)
]
Moment = typer.Option(
    parser=parse_utc, metavar="MOMENT", help="ISO 8601, UTC where no zone is given; now when left out"
)


def settings() -> Settings:
    """Return the settings of the environment, with the ports of the running stack where one runs."""
    return stack.remembered(from_env())


@app.command(rich_help_panel=STACK)
def demo(
    spoiled: Annotated[
        bool, typer.Option("--spoiled", help="end with a challenger that the gates must reject")
    ] = False,
) -> None:
    """Play the whole loop on real flights, about ten minutes on two cores, and leave the stack up.

    A winter model is born, shipped, goes stale in summer and is replaced behind a canary. It starts from an empty home, and
    refuses one that no demo made.
    """
    from include.local import demo as flights_demo

    flights_demo.play(settings(), console, spoiled=spoiled)
    links(settings())


@app.command(rich_help_panel=STACK)
def up() -> None:
    """Start the stack: Airflow, MLflow, the gateway and the model servers; print where they are.

    A port that is taken gives way to the next free one, unless its variable (such as PERENNIAL_AIRFLOW_PORT) names it.
    """
    links(stack.up(settings(), lambda text: console.print(f"[dim]{text} …")))


@app.command(rich_help_panel=STACK)
def down() -> None:
    """Stop the stack; nothing of it is left running, orphans of a killed manager included."""
    swept = stack.down(settings())
    console.print("the stack is down" + (f" ({swept} orphaned processes were stopped)" if swept else ""))


@app.command(rich_help_panel=STACK)
def status() -> None:
    """Show each process with its port, health and memory. The exit code is 3 when the stack is down."""
    current = settings()
    running = processes.running(current.home)
    if not running:
        orphans = processes.marked(current.home)
        left = f"; {len(orphans)} orphaned processes are left: perennial down stops them" if orphans else ""
        console.print(f"the stack is down: perennial up starts it{left}")
        raise typer.Exit(NOT_RUNNING)
    console.print(_process_table(current, running))
    links(current)


@app.command(rich_help_panel=STACK)
def logs() -> None:
    """Follow the logs of all processes; Ctrl-C ends it."""
    folder = settings().home / "logs"
    files = sorted(folder.glob("*.log"))
    if not files:
        console.print(f"no logs yet in {folder}: perennial up starts the stack")
        raise typer.Exit(NOT_RUNNING)
    subprocess.run(["tail", "-n", "20", "-F", *map(str, files)], check=False)


@app.command(rich_help_panel=MODELS)
def champion(model: Model, on: Annotated[datetime | None, Moment] = None) -> None:
    """Say who is, or was, champion, since when, and why.

    Example: perennial champion flights --on 2026-11-01
    """
    from include.reports import summary
    from include.wiring import Parts

    console.print(summary.champion_at(model, Parts(settings()).ledger(), on or datetime.now(UTC)))


@app.command(rich_help_panel=MODELS)
def why(model: Model, at: Annotated[datetime | None, Moment] = None) -> None:
    """Say why a training was, or was not, started by then, with every signal that the watch saw.

    Example: perennial why flights --at 2026-11-01T14:00
    """
    from include.reports import summary
    from include.wiring import Parts

    sentences = summary.why(model, Parts(settings()).ledger(), at or datetime.now(UTC))
    console.print(sentences, highlight=False, soft_wrap=True)


@app.command(rich_help_panel=MODELS)
def expectations(model: Model) -> None:
    """Propose expectations learnt from the first landed windows, as YAML for the spec's validation.expectations."""
    from include.spec.loading import find
    from include.stages.data import expectation_suggestions
    from include.wiring import Parts

    current = settings()
    spec, parts = find(model, current.models), Parts(current)
    sys.stdout.write(f"{expectation_suggestions.suggest(spec, parts.tables(spec), parts.records(spec))}\n")


@app.command(rich_help_panel=MODELS)
def rollback(model: Model) -> None:
    """Send all traffic back to the champion, in a second; a running rollout of the model ends there."""
    from include.stages.rollout import rollout
    from include.wiring import Parts

    current = settings()
    if current.router == "haproxy" and not (current.gateway / f"{model}.map").exists():
        raise UserMistake(f"the gateway has no model named {model!r}; this stack serves {current.model}")
    rollout.rollback(model, Parts(current).rollout_services(), "perennial rollback")
    console.print(f"{model}: all traffic goes to the stable slot")


@app.command(rich_help_panel=MODELS)
def reproduce(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the id of the training's run in MLflow")],
) -> None:
    """Train a run once more from its record alone, and compare data, weights and metrics bit by bit.

    The exit code is 1 where anything differs.
    """
    from include.local import reproduce as reproduction
    from include.wiring import Parts

    current = settings()
    with tempfile.TemporaryDirectory(prefix="reproduce-", dir=current.home) as folder:
        comparisons = reproduction.reproduce(
            run, Parts(current), Path(folder), lambda text: console.print(f"[dim]{text} …")
        )
    table = Table("", "recorded", "rebuilt", "", box=None)
    for row in comparisons:
        table.add_row(row.name, str(row.recorded)[:18], str(row.rebuilt)[:18], "same" if row.same else "[red]differs")
    console.print(table)
    differing = [row.name for row in comparisons if not row.same]
    console.print(f"run {run}: " + (f"{', '.join(differing)} differ" if differing else "rebuilt to the last bit"))
    raise typer.Exit(DIFFERS if differing else 0)


@app.command(hidden=True)
def rebuild(folder: Path, threads: int) -> None:
    """Do the half of `reproduce` that the run's own commit does."""
    from include.local import reproduce as reproduction
    from include.wiring import Parts

    reproduction.rebuild(folder, threads, Parts(settings()))


@app.command(rich_help_panel=ELSEWHERE)
def schema() -> None:
    """Print the JSON Schema of a model's YAML file, for an editor that completes and checks it."""
    from include.spec.model_spec import ModelSpec

    sys.stdout.write(json.dumps(ModelSpec.model_json_schema(), indent=2) + "\n")


@k8s.command()
def check() -> None:
    """Say what the cluster has of what the manifests need, what follows where it lacks it, and which overlay fits."""
    from include.wiring import Parts

    table, report = Table("", "what", "is there", "without it", box=None), Parts(settings()).cluster_check()
    for part in report.parts:
        table.add_row("ok" if part.there else "--", part.name, part.evidence, "" if part.there else part.without)
    console.print(table)
    console.print(f"kubectl apply -k include/manifests/overlays/{report.overlay}")


def links(current: Settings) -> None:
    """Print where a person looks at the running stack, and the admin's password."""
    console.print(f"Airflow  {current.airflow_url}   user admin, password {stack.password(current)}")
    console.print(f"Model    {current.airflow_url}/perennial/{current.model}/")
    console.print(f"Runs     {current.airflow_url}/dags/{current.model}.train/runs")
    console.print(f"MLflow   {current.mlflow_url}/#/models/{current.model}")
    console.print(f"Gateway  {current.gateway_url}/predict   its servers and counts {current.gateway_admin_url}")


def _process_table(current: Settings, running: list[processes.ProcessStatus]) -> Table:
    health = stack.health(current)
    ports = {"api-server": current.airflow_port, "mlflow": current.mlflow_port, "gateway": current.gateway_port}
    for slot in SLOTS:
        ports |= current.slot_servers(slot)
    table = Table("process", "port", "state", "health", "memory", box=None)
    for process in running:
        memory = f"{process.memory / 2**20:.0f} MB"
        port = str(ports.get(process.name, ""))
        table.add_row(process.name, port, process.state.lower(), health.get(process.name, ""), memory)
    table.add_row("", "", "", "in all", f"{sum(p.memory for p in running) / 2**20:.0f} MB")
    return table
