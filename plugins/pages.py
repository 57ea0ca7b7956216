"""What people look at, among Airflow's own pages and behind its login: each model's standing, its reports and cards."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

PREFIX = "/perennial"
#: What a browser may be shown; models, datasets and tables stay where they are.
SHOWN = {".html", ".svg", ".png", ".md", ".css", ".js", ".json"}

#: A plugin's routes are open unless it asks for a user itself.
app = FastAPI(title="Perennial", dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)


def allowed(model: str, user: GetUserDep) -> str:
    """The model, if the user may read its DAGs."""
    if not get_auth_manager().is_authorized_dag(method="GET", user=user, details=DagDetails(id=f"{model}.train")):
        raise HTTPException(403, f"you may not read {model}.train")
    return model


Model = Annotated[str, Depends(allowed)]


@app.get("/", response_class=HTMLResponse)
def index(user: GetUserDep) -> str:
    from include.specs import load_all
    from include.stages import model_page, standing
    from include.wiring import parts

    known, now = parts(), datetime.now(UTC)
    specs = load_all(known.settings.models)[0]
    readable = get_auth_manager().filter_authorized_dag_ids(dag_ids={f"{s.name}.train" for s in specs}, user=user)
    shown = [spec for spec in specs if f"{spec.name}.train" in readable]
    return model_page.index([(s.name, s.description, standing.reign(s.name, known.ledger(), now)) for s in shown])


@app.get("/of/{dag}")
def of_dag(dag: str) -> RedirectResponse:
    """Where a DAG's tab leads."""
    return RedirectResponse(f"{PREFIX}/{dag.rpartition('.')[0]}/")


@app.get("/{model}/", response_class=HTMLResponse)
def page(model: Model) -> str:
    from include.domain.errors import UserMistake
    from include.stages import model_page, rollout_state, standing
    from plugins.run import open_model

    try:
        spec, parts = open_model(model)
    except UserMistake as fault:
        raise HTTPException(404, str(fault)) from None
    settings, ledger = parts.settings, parts.ledger()
    state = rollout_state.load(parts.controls().folder, model)
    rollout = f"version {state.version} {state.phase} {state.reason}".strip() if state else "none yet"
    return model_page.page(
        model, spec.description, standing.reign(model, ledger, datetime.now(UTC)), rollout,
        standing.tables(model, ledger, settings.runs), model_page.reports(settings.reports / model))  # fmt: skip


@app.get("/{model}/reports/{path:path}")
def report(model: Model, path: str) -> FileResponse:
    from include.wiring import parts

    return _file(parts().settings.reports / model, path)


@app.get("/{model}/runs/{run}/evaluation/{name}")
def evaluation(model: Model, run: str, name: str) -> FileResponse:
    from include.wiring import parts

    return _file(parts().settings.runs / model, f"{run}/evaluation/{name}")


def _file(folder: Path, path: str) -> FileResponse:
    """A page below the folder, and nothing beside it."""
    base, found = folder.resolve(), (folder / path).resolve()
    if not found.is_relative_to(base) or found.suffix not in SHOWN or not found.is_file():
        raise HTTPException(404, f"{path} is no page of this model")
    return FileResponse(found)


class Pages(AirflowPlugin):
    name = "perennial"
    fastapi_apps: list[Any] = [{"app": app, "url_prefix": PREFIX, "name": "Perennial"}]
    external_views: list[Any] = [
        {"name": "Models", "href": f"{PREFIX}/", "destination": "nav", "url_route": "models"},
        {"name": "Model", "href": f"{PREFIX}/of/{{DAG_ID}}", "destination": "dag", "url_route": "model"},
    ]
