"""The server's description: an OpenAPI 3.1 document, and a page made of it that needs nothing from other servers."""

import html
from typing import Any

import msgspec

from include.server.feedback import Labels
from include.server.infer import SERVER_METADATA
from include.server.responses import Response
from include.server.servable_model import ServableModel
from include.server.tensors import Infer

#: A JSON object: OpenAPI documents and JSON schemas are built of these.
Json = dict[str, Any]

ERRORS = {
    "400": "The body is wrong; `field` names the place.",
    "408": "The body came too slowly.",
    "413": "Too many bytes or rows.",
    "503": "Overloaded, or no version to serve; Retry-After says when to come back.",
}
ROWS_SCHEMA: Json = {
    "type": "object",
    "required": ["rows"],
    "additionalProperties": False,
    "properties": {"rows": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Row"}}},
}
PREDICTION_SCHEMA: Json = {
    "type": "object",
    "properties": {
        **{k: {"type": "string"} for k in ("request_id", "model", "version", "slot")},
        "scores": {"type": "array", "items": {"type": "number"}},
    },
}
ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "field": {"type": "string"}},
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}pre{{background:#8881;padding:1rem;\
overflow:auto}}code{{font-weight:600}}</style><h1>{title}</h1><p>Version {version}. The whole description is at
<a href="openapi.json">openapi.json</a>.</p>{routes}</html>"""


def document(model: ServableModel | None, name: str) -> Json:
    """Return the OpenAPI document; the columns of a row are those of the version served."""
    _, schemas = msgspec.json.schema_components([Infer, Labels], ref_template="#/components/schemas/{name}")
    row = {"type": "object"} if model is None else _inline(msgspec.json.schema(model.rows.row_type))
    schemas = {**schemas, "Row": row, "Rows": ROWS_SCHEMA, "Prediction": PREDICTION_SCHEMA, "Error": ERROR_SCHEMA}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Perennial: {name}", "version": model.version if model else SERVER_METADATA["version"]},
        "paths": _paths(f"/v2/models/{name}"),
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _paths(model_path: str) -> Json:
    return {
        "/predict": _post("Score raw rows, one bare or several in `rows`", "Rows", "Row", response="Prediction"),
        "/feedback": _post("Send the label of a predicted row, one or several in `labels`", "Labels", "Label"),
        f"{model_path}/infer": _post("Score encoded tensors (Open Inference Protocol V2)", "Infer"),
        model_path: _get("The model's tensors"),
        f"{model_path}/ready": _get("Whether a version is served", may_be_unready=True),
        "/v2": _get("The server's name and extensions"),
        "/v2/health/live": _get("Whether the process answers"),
        "/v2/health/ready": _get("Whether a version is served", may_be_unready=True),
        "/status": _get("What the slot serves and why"),
        "/metrics": _get("Prometheus metrics"),
    }


def html_page(document: Json) -> Response:
    """Return the document as a page for people."""
    routes = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            title, summary = html.escape(f"{method.upper()} {path}"), html.escape(operation["summary"])
            routes.append(f"<h2><code>{title}</code></h2><p>{summary}</p>")
            if "requestBody" in operation:
                routes.append(f"<pre>{html.escape(_body_schemas(document, operation))}</pre>")
    info = document["info"]
    text = PAGE.format(title=html.escape(info["title"]), version=html.escape(info["version"]), routes="".join(routes))
    return Response(200, text.encode(), (("content-type", "text/html; charset=utf-8"),))


def _body_schemas(document: Json, operation: Json) -> str:
    """Return the schemas of the operation's body as indented JSON."""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    names = [s["$ref"].rsplit("/", 1)[1] for s in schema.get("anyOf", [schema])]
    schemas = {name: document["components"]["schemas"][name] for name in names}
    return msgspec.json.format(msgspec.json.encode(schemas), indent=2).decode()


def _inline(schema: Json) -> Json:
    """Return the one definition to which msgspec's schema refers."""
    return dict(schema["$defs"][schema["$ref"].rsplit("/", 1)[1]]) if "$ref" in schema else schema


def _get(summary: str, may_be_unready: bool = False) -> Json:
    errors = {"503": {"description": ERRORS["503"]}} if may_be_unready else {}
    return {"get": {"summary": summary, "responses": {"200": {"description": "OK"}, **errors}}}


def _post(summary: str, *bodies: str, response: str | None = None) -> Json:
    refs = [{"$ref": f"#/components/schemas/{body}"} for body in bodies]
    content = _json_content(refs[0] if len(refs) == 1 else {"anyOf": refs})
    ok: Json = {"description": "OK"}
    if response is not None:
        ok["content"] = _json_content({"$ref": f"#/components/schemas/{response}"})
    error = _json_content({"$ref": "#/components/schemas/Error"})
    responses = {"200": ok} | {code: {"description": text, "content": error} for code, text in ERRORS.items()}
    request_body = {"required": True, "content": content}
    return {"post": {"summary": summary, "requestBody": request_body, "responses": responses}}


def _json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
