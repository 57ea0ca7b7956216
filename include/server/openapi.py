"""The server's description: OpenAPI 3.1, and the same as a page that needs nothing from elsewhere."""

import html
from typing import Any

import msgspec

from include.server.answers import Answer
from include.server.feedback import Labels
from include.server.infer import SERVER
from include.server.model import Model
from include.server.tensors import Infer

ERRORS = {
    "400": "The body is wrong; `field` names the place.", "408": "The body came too slowly.",
    "413": "Too many bytes or rows.", "503": "Overloaded, or no version to serve; Retry-After says when to come back.",
}  # fmt: skip
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}pre{{background:#8881;padding:1rem;\
overflow:auto}}code{{font-weight:600}}</style><h1>{title}</h1><p>Version {version}. The whole description is at
<a href="openapi.json">openapi.json</a>.</p>{routes}</html>"""


def describe(model: Model | None, name: str) -> dict[str, Any]:
    """The OpenAPI document; the row's columns are those of the version served."""
    _, known = msgspec.json.schema_components([Infer, Labels], ref_template="#/components/schemas/{name}")
    row = {"type": "object"} if model is None else _inline(msgspec.json.schema(model.rows.type))
    rows = {"type": "object", "required": ["rows"], "additionalProperties": False,
            "properties": {"rows": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Row"}}}}  # fmt: skip
    prediction = {"type": "object", "properties": {
        **{k: {"type": "string"} for k in ("request_id", "model", "version", "slot")},
        "scores": {"type": "array", "items": {"type": "number"}}}}  # fmt: skip
    error = {"type": "object", "required": ["error"],
             "properties": {"error": {"type": "string"}, "field": {"type": "string"}}}  # fmt: skip
    schemas = {**known, "Row": row, "Rows": rows, "Prediction": prediction, "Error": error}
    base = f"/v2/models/{name}"
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Perennial: {name}", "version": model.version if model else SERVER["version"]},
        "paths": {
            "/predict": _post("Score raw rows, one bare or several in `rows`", "Rows", "Row", answer="Prediction"),
            "/feedback": _post("Send the label of a predicted row, one or several in `labels`", "Labels", "Label"),
            f"{base}/infer": _post("Score encoded tensors (Open Inference Protocol V2)", "Infer"),
            base: _get("The model's tensors"),
            f"{base}/ready": _get("Whether a version is served", ready=True),
            "/v2": _get("The server's name and extensions"),
            "/v2/health/live": _get("Whether the process answers"),
            "/v2/health/ready": _get("Whether a version is served", ready=True),
            "/status": _get("What the slot serves and why"),
            "/metrics": _get("Prometheus metrics"),
        },
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def page(document: dict[str, Any]) -> Answer:
    """The document for people."""
    parts = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}</p>"
            )
            parts += [f"<pre>{html.escape(_example(document, operation))}</pre>"] if "requestBody" in operation else []
    info = document["info"]
    text = PAGE.format(title=html.escape(info["title"]), version=html.escape(info["version"]), routes="".join(parts))
    return Answer(200, text.encode(), (("content-type", "text/html; charset=utf-8"),))


def _example(document: dict[str, Any], operation: dict[str, Any]) -> str:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    named = [s["$ref"].rsplit("/", 1)[1] for s in schema.get("anyOf", [schema])]
    shown = {name: document["components"]["schemas"][name] for name in named}
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """The one definition that msgspec refers to."""
    return dict(schema["$defs"][schema["$ref"].rsplit("/", 1)[1]]) if "$ref" in schema else schema


def _get(summary: str, ready: bool = False) -> dict[str, Any]:
    faults = {"503": {"description": ERRORS["503"]}} if ready else {}
    return {"get": {"summary": summary, "responses": {"200": {"description": "OK"}, **faults}}}


def _post(summary: str, *bodies: str, answer: str | None = None) -> dict[str, Any]:
    refs = [{"$ref": f"#/components/schemas/{b}"} for b in bodies]
    content = {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
    ok: dict[str, Any] = {"description": "OK"}
    if answer is not None:
        ok["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    faults = {code: {"description": text, "content": error} for code, text in ERRORS.items()}
    return {"post": {"summary": summary, "requestBody": {"required": True, "content": content},
                     "responses": {"200": ok, **faults}}}  # fmt: skip
