"""The environment is read once, and a wrong value is named."""

from pathlib import Path

import pytest

from include.settings import from_env


def test_what_is_given_overrides_and_the_rest_keeps_its_default() -> None:
    settings = from_env({"PERENNIAL_HOME": "/data/perennial", "PERENNIAL_MLFLOW_PORT": "5555", "OTHER": "x"})
    assert settings.tables == Path("/data/perennial/tables")
    assert settings.mlflow_url == "http://127.0.0.1:5555"
    assert settings.airflow_port == from_env({}).airflow_port


def test_a_port_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match="PERENNIAL_AIRFLOW_PORT=eighty"):
        from_env({"PERENNIAL_AIRFLOW_PORT": "eighty"})


def test_servers_listen_on_loopback_unless_told() -> None:
    assert from_env({}).host == "127.0.0.1"
    assert from_env({"PERENNIAL_HOST": "0.0.0.0"}).slot_url("stable") == "http://0.0.0.0:9001"
