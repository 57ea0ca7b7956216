"""Connections as the Astro CLI's file names their parts, and as Airflow's API does."""

import yaml

from include.local.rest import connection_body
from include.settings import ROOT


def test_every_part_of_a_connection_reaches_airflow() -> None:
    row = {
        "conn_id": "bucket",
        "conn_type": "aws",
        "conn_host": "",
        "conn_schema": "s",
        "conn_login": "key",
        "conn_password": "secret",
        "conn_port": 9000,
        "conn_extra": {"region_name": "eu"},
    }
    assert connection_body(row) == {
        "connection_id": "bucket",
        "conn_type": "aws",
        "schema": "s",
        "login": "key",
        "password": "secret",
        "port": 9000,
        "extra": '{"region_name": "eu"}',
    }


def test_the_file_loads_no_connection_that_nobody_reads() -> None:
    assert yaml.safe_load((ROOT / "airflow_settings.yaml").read_text())["airflow"]["connections"] == []
