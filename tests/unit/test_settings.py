"""The environment is read once, and a wrong value is named."""

from pathlib import Path

import pytest

from include.settings import from_env


def test_what_is_set_overrides_and_the_rest_keeps_its_default() -> None:
    settings = from_env({"PERENNIAL_HOME": "/data/perennial", "PERENNIAL_MLFLOW_PORT": "5555", "OTHER": "x"})
    assert settings.tables == Path("/data/perennial/tables")
    assert settings.mlflow_url == "http://127.0.0.1:5555"
    assert settings.airflow_port == from_env({}).airflow_port


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("PERENNIAL_AIRFLOW_PORT=eighty", "should be a valid integer"),
        ("PERENNIAL_AIRFLOW_PORT=0", "should be greater than or equal to 1"),
        ("PERENNIAL_AIRFLOW_PORT=70000", "should be less than or equal to 65535"),
        ("PERENNIAL_SERVERS=0", "should be greater than or equal to 1"),
        ("PERENNIAL_ROUTER=traefik", "should be 'haproxy', 'gateway' or 'replicas'"),
    ],
)
def test_what_is_no_number_above_0_and_no_choice_is_named(variable: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{variable}: {reason}[^\n]*$"):
        from_env(dict([variable.split("=")]))


def test_every_wrong_variable_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"PERENNIAL_SERVERS=0: .*\nPERENNIAL_ROUTER=x: "):
        from_env({"PERENNIAL_ROUTER": "x", "PERENNIAL_SERVERS": "0", "PERENNIAL_MODEL": ""})


def test_each_server_of_a_slot_has_a_port_and_a_cluster_s_have_one_name() -> None:
    settings = from_env({"PERENNIAL_SERVERS": "2"})
    assert settings.slot_urls("canary") == ["http://127.0.0.1:9002", "http://127.0.0.1:9012"]
    named = from_env({"PERENNIAL_SERVERS": "2", "PERENNIAL_SLOTS": "http://{model}-{slot}:80"})
    assert named.slot_urls("canary") == ["http://{model}-canary:80"]


def test_servers_listen_on_loopback_unless_told() -> None:
    assert from_env({}).host == "127.0.0.1"
    assert from_env({"PERENNIAL_HOST": "0.0.0.0"}).slot_urls("stable")[0] == "http://0.0.0.0:9001"
