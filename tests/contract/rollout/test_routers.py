"""What every router promises, on a real HAProxy, on the Gateway API and on numbers of pods."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from include.adapters.routers.haproxy import BUCKET_HEADER
from include.domain.errors import Unavailable, UserMistake
from include.ports.traffic import Routes
from tests.gateway import until
from tests.kubernetes_api import Refused
from tests.routed import DEPLOYMENT, ROUTE, ClusterTraffic, RoutedTraffic, on_gateway, on_haproxy, on_replicas

KINDS: dict[str, Callable[[Path, str], AbstractContextManager[RoutedTraffic]]] = {
    "haproxy": on_haproxy,
    "gateway": on_gateway,
    "replicas": on_replicas,
}
ANY = ["haproxy", "gateway", "gateway on the cluster", "replicas"]  #: on a cluster pods decide: tests/cluster
SHAPING = ANY[:3]  #: those that see requests


@pytest.fixture
def routed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RoutedTraffic]:
    kind, _, place = request.param.partition(" on the ")
    with KINDS[kind](tmp_path, place or "fake") as routed:
        yield routed


@pytest.mark.parametrize("routed", ANY, indirect=True)
def test_routes_take_effect_before_apply_returns(routed: RoutedTraffic) -> None:
    canary_shares = []
    for weight in (10, 50, 100, 0):
        routed.router.apply("flights", Routes(weight))
        assert routed.router.current("flights") == Routes(weight)
        canary_shares.append(routed.ask(100)["canary"])
    assert canary_shares == [10, 50, 100, 0]


@pytest.mark.parametrize("routed", ANY, indirect=True)
def test_all_is_sent_to_stable_before_any_rollout(routed: RoutedTraffic) -> None:
    assert routed.router.current("flights") == Routes()


@pytest.mark.parametrize("routed", SHAPING, indirect=True)
def test_a_bucket_stays_with_its_model_while_the_weight_grows(routed: RoutedTraffic) -> None:
    routed.router.apply("flights", Routes(10))
    assert routed.ask(20, **{BUCKET_HEADER: "09"}) == {"canary": 20}
    assert routed.ask(20, **{BUCKET_HEADER: "10"}) == {"stable": 20}
    routed.router.apply("flights", Routes(50))
    assert routed.ask(20, **{BUCKET_HEADER: "09"}) == {"canary": 20}
    assert routed.ask(20, **{BUCKET_HEADER: "10"}) == {"canary": 20}
    assert routed.ask(20, **{BUCKET_HEADER: "50"}) == {"stable": 20}


@pytest.mark.parametrize("routed", SHAPING, indirect=True)
def test_shadow_copies_every_request_and_answers_from_stable(routed: RoutedTraffic) -> None:
    before = routed.copied()
    routed.router.apply("flights", Routes(mirror=True))
    assert routed.router.current("flights") == Routes(mirror=True)
    assert routed.ask(50) == {"stable": 50}
    until(lambda: routed.copied() == before + 50)


GATEWAY = pytest.mark.parametrize("routed", ["gateway", "gateway on the cluster"], indirect=True)


@GATEWAY
@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        (
            {"ResolvedRefs": {"status": "False", "reason": "BackendNotFound", "message": "flights-canary not found"}},
            r"perennial refuses it \(BackendNotFound\): flights-canary not found",
        ),
        ({"Accepted": {"status": "False", "reason": "NoMatchingParent", "message": "no listener"}}, "no listener"),
        ({"Accepted": {"observedGeneration": 1}}, "says nothing of generation 2"),
    ],
)
def test_a_route_that_is_not_accepted_is_an_error_with_the_gateways_words(
    routed: ClusterTraffic, conditions: dict[str, Any], sentence: str
) -> None:
    routed.conditions = conditions
    with pytest.raises(Unavailable, match=sentence):
        routed.router.apply("flights", Routes(10))


@GATEWAY
def test_a_class_that_does_not_say_it_copies_requests_is_given_no_mirror(routed: ClusterTraffic) -> None:
    routed.report_features()
    with pytest.raises(UserMistake, match=r"rollout\.shadow: Gateway class .* does not say that it copies requests"):
        routed.router.apply("flights", Routes(mirror=True))
    routed.router.apply("flights", Routes(10))
    assert routed.router.current("flights") == Routes(10)


@GATEWAY
def test_without_a_controller_the_error_says_so(routed: ClusterTraffic) -> None:
    routed.controller_silent = True
    routed.cluster.merge(f"{ROUTE}/status", {"status": {"parents": []}})
    with pytest.raises(Unavailable, match="no Gateway took it"):
        routed.router.apply("flights", Routes(10))


@GATEWAY
def test_a_model_without_a_route_is_not_given_one_that_hangs_nowhere(routed: ClusterTraffic) -> None:
    with pytest.raises(Unavailable, match=r"httproutes/other_model|httproutes.*other-model"):
        routed.router.apply("other_model", Routes(10))


@GATEWAY
def test_the_rollout_owns_the_split_and_nothing_else(routed: ClusterTraffic) -> None:
    routed.router.apply("flights", Routes(10))
    route = routed.cluster.get(ROUTE)
    assert route["spec"]["parentRefs"][0]["name"] == "perennial"
    assert route["spec"]["hostnames"] == ["flights.example.org"]
    if routed.fake:
        owners = routed.fake.owners["httproutes", "flights"]
        assert owners[".spec.rules"] == "perennial-rollout"
        assert owners[".spec.hostnames"] == "somebody else"
        with pytest.raises(Refused, match="conflict"):
            query = f"/{ROUTE.replace('namespaced', 'namespaces/perennial')}?fieldManager=person"
            routed.fake.answer("PATCH", query, "application/apply-patch+yaml", {"spec": {"rules": []}})
    else:
        owned = {m["manager"]: m["fieldsV1"] for m in route["metadata"]["managedFields"] if m["operation"] == "Apply"}
        assert owned["perennial-rollout"] == {"f:spec": {"f:rules": {}}}


REPLICAS = pytest.mark.parametrize("routed", ["replicas"], indirect=True)


@REPLICAS
def test_going_back_waits_for_no_pod(routed: ClusterTraffic) -> None:
    routed.router.apply("flights", Routes(100))
    routed.pods_unready = True  # whatever becomes of the pods that are started now
    until(lambda: not routed.pods())
    routed.router.apply("flights", Routes(0))
    assert routed.router.current("flights") == Routes(0)
    for slot in ("stable", "canary"):
        assert routed.cluster.get(f"{DEPLOYMENT.format(slot)}/scale")["spec"]["replicas"] >= 1, "holds its version"


@REPLICAS
def test_a_share_that_so_many_pods_cannot_give_is_refused_with_the_nearest(routed: ClusterTraffic) -> None:
    with pytest.raises(UserMistake, match=r"10 pods cannot give the canary 2 % .*nearest is 10 %"):
        routed.router.apply("flights", Routes(2))


@REPLICAS
def test_a_service_cannot_mirror_and_says_what_to_do(routed: ClusterTraffic) -> None:
    with pytest.raises(UserMistake, match=r"rollout\.shadow"):
        routed.router.apply("flights", Routes(mirror=True))


@REPLICAS
def test_the_split_waits_for_the_pods_it_counts_on(routed: ClusterTraffic) -> None:
    routed.pods_unready = True
    until(lambda: not routed.pods())
    with pytest.raises(Unavailable, match="0 of 5 canary pods are ready"):
        routed.router.apply("flights", Routes(50))
    assert routed.router.current("flights") == Routes(), "the Service still selects stable alone"
