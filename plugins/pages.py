"""What people look at, among Airflow's own pages and behind its login: each model's standing, its reports and cards."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from include.domain.rollout.actions import Word
from plugins.run import PAGES, folder_name, open_model

#: What a browser may be shown; models, datasets and tables stay where they are.
SHOWN = {".html", ".svg", ".png", ".md", ".css", ".js", ".json"}

#: A plugin's routes are open unless it asks for a user itself.
app = FastAPI(title="Perennial", dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)


def allowed(model: str, user: GetUserDep) -> str:
    """The model, if the user may read its DAGs."""
    if not get_auth_manager().is_authorized_dag(method="GET", user=user, details=DagDetails(id=f"{model}.train")):
        raise HTTPException(403, f"you may not read {model}.train")
    return model


def steerable(model: str, user: GetUserDep, request: Request) -> str:
    """The model, if the user may run its steering and the form is one of these pages: another site's has its own origin."""
    run = DagAccessEntity.RUN
    if not get_auth_manager().is_authorized_dag(
        method="POST", access_entity=run, user=user, details=DagDetails(id=f"{model}.steer")
    ):
        raise HTTPException(403, f"you may not run {model}.steer")
    if urlsplit(request.headers.get("origin", "")).netloc not in ("", request.headers["host"]):
        raise HTTPException(403, "this was sent by another site")
    return model


Model = Annotated[str, Depends(allowed)]
Steerable = Annotated[str, Depends(steerable)]


@app.get("/", response_class=HTMLResponse)
def index(user: GetUserDep) -> str:
    from include.reports import model_page, summary
    from include.spec.loading import load_all
    from include.wiring import parts

    known, now = parts(), datetime.now(UTC)
    specs = load_all(known.settings.models)[0]
    readable = get_auth_manager().filter_authorized_dag_ids(dag_ids={f"{s.name}.train" for s in specs}, user=user)
    shown = [spec for spec in specs if f"{spec.name}.train" in readable]
    return model_page.index([(s.name, s.description, summary.champion_at(s.name, known.ledger(), now)) for s in shown])


@app.get("/of/{dag}")
def of_dag(dag: str) -> RedirectResponse:
    """Where a DAG's tab leads."""
    return RedirectResponse(f"{PAGES}/{dag.rpartition('.')[0]}/")


@app.get("/of/{dag}/{run}")
def of_run(dag: str, run: str) -> RedirectResponse:
    """Where a run's tab leads: a training's card, a rollout's plots; the model's page where there is neither."""
    from include.wiring import parts

    model, _, family = dag.rpartition(".")
    name = folder_name(run)
    places = {"train": f"runs/{name}/evaluation/card.html", "rollout": f"rollouts/{name}/"}
    card = parts().settings.runs / model / name / "evaluation" / "card.html"
    known = family == "rollout" or (family == "train" and (card.exists() or _link(card)))
    return RedirectResponse(quote(f"{PAGES}/{model}/{places[family] if known else ''}"))


@app.get("/{model}/", response_class=HTMLResponse)
def page(model: Model) -> str:
    from include.domain.errors import UserMistake
    from include.reports import model_page, rollout_page, summary
    from include.stages.rollout import state as rollout_state

    try:
        spec, parts = open_model(model)
    except UserMistake as fault:
        raise HTTPException(404, str(fault)) from None
    settings, ledger = parts.settings, parts.ledger()
    state = rollout_state.load(parts.controls().folder, model)
    looks = rollout_page.looks_of(model, state.run, ledger) if state else []
    return model_page.page(
        model, spec.description, summary.champion_at(model, ledger, datetime.now(UTC)), state, looks,
        summary.tables(model, ledger, settings.runs), model_page.reports(settings.reports / model))  # fmt: skip


@app.get("/{model}/rollouts/{run}/", response_class=HTMLResponse)
def rollout(model: Model, run: str) -> str:
    from include.reports import rollout_page
    from include.wiring import parts

    return rollout_page.page(model, run, parts().ledger())


@app.post("/{model}/steer")
def steer(
    model: Steerable, user: GetUserDep, word: Annotated[Word, Form()], reason: Annotated[str, Form()] = ""
) -> Any:
    """What a button says is done here and now, so going back needs no scheduler either."""
    from include.domain.errors import PerennialError
    from include.stages.rollout import actions

    parts = open_model(model)[1]
    kept = {"controls": parts.controls(), "registry": parts.registry()}
    try:
        actions.obey(model, word, user.get_name(), reason, **kept, now=datetime.now(UTC))
    except PerennialError as fault:
        raise HTTPException(409, str(fault)) from None
    return RedirectResponse("./", status_code=303)


@app.get("/{model}/reports/{path:path}")
def report(model: Model, path: str) -> FileResponse:
    from include.wiring import parts

    return _file(parts().settings.reports / model, path)


@app.get("/{model}/runs/{run}/evaluation/{name}")
def evaluation(model: Model, run: str, name: str) -> Response:
    """Show a file of a training's evaluation: the one on this machine, else the one in object storage, by a link."""
    from include.wiring import parts

    folder = parts().settings.runs / model
    path = _page_path(folder, f"{run}/evaluation/{name}")
    if not path.is_file() and (link := _link(folder / run / "evaluation" / name)):
        return RedirectResponse(link)
    return _file(folder, f"{run}/evaluation/{name}")


def _link(path: Path) -> str | None:
    """Return a link to the file in object storage, None where it is not there or no bucket is named."""
    from include.domain.errors import PerennialError
    from include.wiring import parts

    try:
        return parts().storage().link(path)
    except PerennialError as error:
        raise HTTPException(503, str(error)) from None


def _file(folder: Path, path: str) -> FileResponse:
    """Answer with a page below the folder, and nothing beside it."""
    page_path = _page_path(folder, path)
    if not page_path.is_file():
        raise HTTPException(404, f"{path} is no page of this model")
    return FileResponse(page_path)


def _page_path(folder: Path, path: str) -> Path:
    """Return the place of a page below the folder. Raises HTTPException for a path that leaves it, or is of no page."""
    base, resolved = folder.resolve(), (folder / path).resolve()
    if not resolved.is_relative_to(base) or resolved.suffix not in SHOWN:
        raise HTTPException(404, f"{path} is no page of this model")
    return resolved


class Pages(AirflowPlugin):
    name = "perennial"
    fastapi_apps: list[Any] = [{"app": app, "url_prefix": PAGES, "name": "Perennial"}]
    external_views: list[Any] = [
        {"name": "Models", "href": f"{PAGES}/", "destination": "nav", "url_route": "models"},
        {
            "name": "Evidence",
            "href": f"{PAGES}/of/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "evidence",
        },
        {"name": "Model", "href": f"{PAGES}/of/{{DAG_ID}}", "destination": "dag", "url_route": "model"},
    ]
