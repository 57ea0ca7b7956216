"""A notification as its receiver gets it: sent by Apprise over HTTP to a server of the test's own."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from plugins import notifications
from tests.unit.toy import toy

#: Apprise imports a module that Python 3.13 drops.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
VERDICT = "challenger: fail\nworse: logloss 0.69, the champion's 0.48 {{ 7 * 7 }}"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    messages: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        path = f"json://127.0.0.1:{server.server_port}/"
        extra = {"config": {"path": path, "tag": "all"}}
        monkeypatch.setenv("AIRFLOW_CONN_ON_CALL", json.dumps({"conn_type": "apprise", "extra": extra}))
        yield messages
        server.shutdown()
        thread.join()


def context(**more: Any) -> dict[str, Any]:
    ti = SimpleNamespace(
        task_id="gate", log_url="http://localhost/log", xcom_pull=lambda _: {"version": "7", "outcome": "inconclusive"}
    )
    return {"dag": DAG("toy.train", schedule=None), "ti": ti, **more}


def notifying(**more: Any) -> Any:
    arguments = {"apprise_conn_id": "on_call", "title": "{title}", "body": "{text}", **more}
    return toy(notify=[{"arguments": arguments}])


def test_of_a_failed_verdict_the_reasons_are_sent_as_they_are(received: list[dict[str, Any]]) -> None:
    [notify] = notifications.of_failure(notifying())
    notify(context(exception=VERDICT))
    assert received[0]["title"] == "toy.train: gate failed"
    assert received[0]["message"] == f"{VERDICT}\nhttp://localhost/log"


def test_of_an_approval_that_is_wanted_version_and_verdict_are_sent(received: list[dict[str, Any]]) -> None:
    [notify] = notifications.of_approval(notifying())
    notify(context())
    assert received[0]["title"] == "Release toy version 7?"
    assert "verdict: inconclusive" in received[0]["message"]


def test_a_message_that_cannot_be_sent_is_logged_and_holds_nothing_up(capsys: pytest.CaptureFixture[str]) -> None:
    [notify] = notifications.of_failure(notifying(apprise_conn_id="nobody"))
    notify(context(exception="x"))
    assert "AppriseNotifier could not notify" in capsys.readouterr().out


def test_without_notify_nothing_is_sent() -> None:
    assert notifications.of_failure(toy()) == notifications.of_approval(toy()) == []
