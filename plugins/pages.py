"""The pages for people, among Airflow's own and behind its login: each model, its reports, cards and rollouts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from include.domain.rollout.actions import RolloutAction
from plugins.current_run import PAGES, folder_name, open_model

#: The files that a browser may be given; models, datasets and tables stay where they are.
PAGE_SUFFIXES = {".html", ".svg", ".png", ".md", ".css", ".js"}

#: Airflow leaves a plugin's routes open to everybody, so this one asks for a user itself.
app = FastAPI(title="Perennial", dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)


def check_exists(model: str) -> str:
    """Return the model if there is a valid spec of that name, which leaves no place for paths. Raises 404."""
    from include.domain.errors import UserMistake

    try:
        open_model(model)
    except UserMistake as error:
        raise HTTPException(404, str(error)) from None
    return model


def check_may_read(model: Annotated[str, Depends(check_exists)], user: GetUserDep) -> str:
    """Return the model if the user may read its DAGs. Raises 403, and 404 for a model that is not there."""
    if not get_auth_manager().is_authorized_dag(method="GET", user=user, details=DagDetails(id=f"{model}.train")):
        raise HTTPException(403, f"you may not read {model}.train")
    return model


def check_may_steer(model: Annotated[str, Depends(check_exists)], user: GetUserDep, request: Request) -> str:
    """Return the model if the user may run its steering. Raises 403, also for a form that another site sent."""
    run = DagAccessEntity.RUN
    if not get_auth_manager().is_authorized_dag(
        method="POST", access_entity=run, user=user, details=DagDetails(id=f"{model}.steer")
    ):
        raise HTTPException(403, f"you may not run {model}.steer")
    if not _sent_by_our_pages(request):
        raise HTTPException(403, f"this was sent by another site: the pages' origin is {_own_origin()}")
    return model


def _sent_by_our_pages(request: Request) -> bool:
    """Tell whether no other site can have made the browser send this.

    A browser adds the cookie to what any site sends, but neither a bearer token nor our origin; `Origin: null`, or none, is
    what a page without a referrer or a sandboxed frame sends.
    """
    bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
    return bearer or request.headers.get("origin") == _own_origin()


def _own_origin() -> str:
    url = urlsplit(conf.get("api", "base_url"))
    return f"{url.scheme}://{url.netloc}"


#: The name of a model that the user may read, and of one that the user may steer.
ReadableModel = Annotated[str, Depends(check_may_read)]
SteerableModel = Annotated[str, Depends(check_may_steer)]


@app.get("/", response_class=HTMLResponse)
def models(user: GetUserDep) -> str:
    """Show all models that the user may read, with who is champion."""
    from include.reports import model_page, summary
    from include.spec.loading import load_all
    from include.wiring import parts

    stack, now = parts(), datetime.now(UTC)
    specs = load_all(stack.settings.models)[0]
    readable = get_auth_manager().filter_authorized_dag_ids(dag_ids={f"{s.name}.train" for s in specs}, user=user)
    readable_specs = [spec for spec in specs if f"{spec.name}.train" in readable]
    ledger = stack.ledger()
    entries = [
        model_page.IndexEntry(spec.name, spec.description, summary.champion_at(spec.name, ledger, now))
        for spec in readable_specs
    ]
    return model_page.index(entries)


@app.get("/of/{dag}")
def redirect_from_dag(dag: str, user: GetUserDep) -> RedirectResponse:
    """Lead from a DAG's tab to the model's page."""
    return RedirectResponse(f"{PAGES}/{_model_of(dag, user)}/")


@app.get("/of/{dag}/{run}")
def redirect_from_run(dag: str, run: str, user: GetUserDep) -> RedirectResponse:
    """Lead from a run's tab to a training's card or a rollout's plots, and to the model's page where there is neither."""
    from include.wiring import parts

    model, dag_kind, name = _model_of(dag, user), dag.rpartition(".")[2], folder_name(run)
    card = Path(name) / "evaluation" / "card.html"
    card_file = parts().settings.runs / model / card
    page = ""
    if dag_kind == "rollout":
        page = f"rollouts/{name}/"
    elif dag_kind == "train" and (card_file.exists() or _link(card_file)):
        page = f"runs/{card}"
    return RedirectResponse(quote(f"{PAGES}/{model}/{page}"))


def _model_of(dag: str, user: GetUserDep) -> str:
    """Return the model whose DAG this is. Raises 404 and 403 as its page does."""
    return check_may_read(check_exists(dag.rpartition(".")[0]), user)


@app.get("/{model}/", response_class=HTMLResponse)
def page(model: ReadableModel) -> str:
    """Show a model: its champion, its rollout with buttons to steer it, and its tables and reports."""
    from include.reports import model_page, rollout_page, summary
    from include.stages.rollout import state_file

    spec, parts = open_model(model)
    settings, ledger = parts.settings, parts.ledger()
    state = state_file.load(parts.rollout_folder(), model)
    analyses = rollout_page.analyses_of(model, state.run, ledger) if state else []
    champion = summary.champion_at(model, ledger, datetime.now(UTC))
    tables, reports = summary.tables(model, ledger, settings.runs), model_page.report_paths(settings.reports / model)
    return model_page.page(model, spec.description, champion, state, analyses, tables, reports)


@app.get("/{model}/rollouts/{run}/", response_class=HTMLResponse)
def rollout(model: ReadableModel, run: str) -> str:
    """Show the evidence of one rollout."""
    from include.reports import rollout_page
    from include.wiring import parts

    return rollout_page.page(model, run, parts().ledger())


@app.post("/{model}/steer")
def steer(
    model: SteerableModel,
    user: GetUserDep,
    action: Annotated[RolloutAction, Form(alias="word")],
    reason: Annotated[str, Form()] = "",
) -> RedirectResponse:
    """Carry out a button's action here and now, so that going back needs no scheduler either."""
    from include.domain.errors import PerennialError
    from include.stages.rollout import actions

    services = open_model(model)[1].rollout_services()
    try:
        actions.perform(model, action, user.get_name(), reason, services=services, now=datetime.now(UTC))
    except PerennialError as error:
        raise HTTPException(409, str(error)) from None
    return RedirectResponse("./", status_code=303)


@app.get("/{model}/reports/{path:path}")
def report(model: ReadableModel, path: str) -> FileResponse:
    """Give a file of the model's reports."""
    from include.wiring import parts

    return _file(parts().settings.reports / model, path)


@app.get("/{model}/runs/{run}/evaluation/{name}")
def evaluation(model: ReadableModel, run: str, name: str) -> Response:
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
    if not resolved.is_relative_to(base) or resolved.suffix not in PAGE_SUFFIXES:
        raise HTTPException(404, f"{path} is no page of this model")
    return resolved


class Pages(AirflowPlugin):
    """Adds the pages to Airflow, with entries in its menu, its DAGs and their runs."""

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
