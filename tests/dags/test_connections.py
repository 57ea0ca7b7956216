"""An Airflow connection gives the source its credentials."""

import json
from typing import Any

import pytest

from include.domain.errors import UserMistake
from plugins import connections


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", **fields}))


def test_no_connection_leaves_all_to_the_environment() -> None:
    assert connections.s3(None) == {}


def test_keys_token_region_and_endpoint_go_by_the_names_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"aws_session_token": "token", "region_name": "eu-west-1", "endpoint_url": "http://127.0.0.1:9000"}
    connect(monkeypatch, login="reader", password="secret", extra=extra)
    assert connections.s3("lake") == {
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_ALLOW_HTTP": "true",
    }


def test_a_connection_without_keys_leaves_them_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, extra={"region_name": "eu-west-1"})
    assert connections.s3("lake") == {"AWS_REGION": "eu-west-1"}


def test_a_connection_that_there_is_not() -> None:
    with pytest.raises(UserMistake, match="Airflow has no connection lake"):
        connections.s3("lake")


def test_half_a_pair_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, login="reader")
    with pytest.raises(UserMistake, match="connection lake: login and password are"):
        connections.s3("lake")
