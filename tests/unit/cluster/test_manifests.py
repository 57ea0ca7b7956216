"""What is installed on a cluster: rendered, checked against Kubernetes' schema, and against what the code expects there."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from include.adapters.routers import gateway_api, replicas
from include.adapters.training import pods as training_pods
from include.ports.traffic import Routes
from include.server.__main__ import parse_arguments
from include.settings import ROOT, Settings, from_env
from tests.kustomize import render
from tests.unit.toy import toy

Objects = list[dict[str, Any]]

OVERLAYS = ROOT / "include" / "manifests" / "overlays"
ALL = ("plain", "cpu", "gpu")
#: Kinds whose schema comes with a controller, not with Kubernetes.
CUSTOM = {"Gateway", "HTTPRoute", "ServiceMonitor"}
#: What Pod Security `restricted` lets a pod mount, of what is used here.
VOLUMES = {"name", "emptyDir", "persistentVolumeClaim"}


@pytest.fixture(scope="module", params=ALL)
def installed(request: pytest.FixtureRequest) -> Objects:
    return render(OVERLAYS / request.param)


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    """Return the objects of that kind by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods(objects: Objects) -> Iterator[dict[str, Any]]:
    """Yield the template of every pod: those of the manifests and those of trainings."""
    workloads = [*of_kind(objects, "Deployment").values(), *of_kind(objects, "StatefulSet").values()]
    yield from (workload["spec"]["template"] for workload in workloads)
    jobs, two_nodes = [Path("/job.json")], toy(training={"kubernetes": {"nodes": 2}})
    manifests = training_pods.TrainingManifests(Settings())
    yield manifests.pod(toy(), jobs, "a")
    yield manifests.job(two_nodes, jobs, "a")["spec"]["template"]


def test_kubernetes_takes_every_object(installed: Objects) -> None:
    for each in installed:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, "1.36", strict=True)


def test_a_cluster_with_nothing_installed_takes_plain() -> None:
    assert not CUSTOM & {each["kind"] for each in render(OVERLAYS / "plain")}


def test_every_pod_is_restricted(installed: Objects) -> None:
    for pod in pods(installed):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for volume in spec.get("volumes", []):
            assert set(volume) <= VOLUMES
        for container in spec["containers"]:
            security = container["securityContext"]
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_namespace_enforces_it_and_no_secret_is_kept_here(installed: Objects) -> None:
    (namespace,) = of_kind(installed, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not of_kind(installed, "Secret")


def test_every_service_and_budget_finds_its_pods_and_their_port(installed: Objects) -> None:
    templates = list(pods(installed))
    for name, service in of_kind(installed, "Service").items():
        selector = service["spec"]["selector"].items()
        selected = [template for template in templates if selector <= template["metadata"]["labels"].items()]
        assert selected, name
        containers = [container for template in selected for container in template["spec"]["containers"]]
        ports = {port["name"] for container in containers for port in container.get("ports", [])}
        assert {str(p.get("targetPort", "")) for p in service["spec"]["ports"]} - {""} <= ports
    for budget in of_kind(installed, "PodDisruptionBudget").values():
        labels = budget["spec"]["selector"]["matchLabels"].items()
        assert any(labels <= t["metadata"]["labels"].items() for t in templates)


def test_the_code_finds_what_it_names(installed: Objects) -> None:
    services, deployments = of_kind(installed, "Service"), of_kind(installed, "Deployment")
    rules = [
        rule for routes in (Routes(50), Routes(mirror=True)) for rule in gateway_api.route_rules("flights", routes)
    ]
    for rule in rules:
        for ref in [*rule["backendRefs"], *(f["requestMirror"]["backendRef"] for f in rule.get("filters", []))]:
            assert {p["port"] for p in services[ref["name"]]["spec"]["ports"]} == {ref["port"]}
    assert services["flights"]["spec"]["selector"][replicas.SLOT_LABEL] == "stable"
    assert {f"flights-{slot}" for slot in ("stable", "canary", "shadow")} == set(deployments)
    assert training_pods.SUBDOMAIN in services
    assert services[training_pods.SUBDOMAIN]["spec"]["publishNotReadyAddresses"]
    assert training_pods.SERVICE_ACCOUNT in of_kind(installed, "ServiceAccount")
    assert training_pods.HOME_CLAIM in of_kind(installed, "PersistentVolumeClaim")


def test_without_a_gateway_a_tenth_is_one_pod() -> None:
    deployments = of_kind(render(OVERLAYS / "plain"), "Deployment")
    together = sum(deployments[f"flights-{slot}"]["spec"]["replicas"] for slot in ("stable", "canary"))
    assert replicas.pod_counts(together, 10) == {"stable": together - 1, "canary": 1}


def test_applying_the_manifests_again_does_not_reset_the_split() -> None:
    assert set(of_kind(render(OVERLAYS / "cpu"), "HTTPRoute")["flights"]["spec"]) == {"parentRefs"}


def test_applying_the_manifests_again_does_not_undo_the_autoscaler() -> None:
    objects = render(OVERLAYS / "cpu")
    for scaler in of_kind(objects, "HorizontalPodAutoscaler").values():
        assert "replicas" not in of_kind(objects, "Deployment")[scaler["spec"]["scaleTargetRef"]["name"]]["spec"]


def test_the_settings_are_settings(installed: Objects) -> None:
    variables = of_kind(installed, "ConfigMap")["perennial"]["data"]
    assert set(variables) <= {f"PERENNIAL_{field.name.upper()}" for field in fields(Settings)}
    settings = from_env(variables)
    assert settings.launcher == "kubernetes"
    server = of_kind(installed, "Deployment")["flights-stable"]["spec"]["template"]["spec"]["containers"][0]
    assert str(settings.home) == server["volumeMounts"][0]["mountPath"]
    name = settings.slot_urls("stable")[0].format(model="flights").removeprefix("http://").removesuffix(":8080")
    assert name in of_kind(installed, "Service")


def test_the_servers_look_up_the_past_in_the_store_that_airflow_writes(installed: Objects) -> None:
    store = urlsplit(of_kind(installed, "ConfigMap")["perennial"]["data"]["PERENNIAL_ONLINE"])
    assert store.port in {port["port"] for port in of_kind(installed, "Service")[str(store.hostname)]["spec"]["ports"]}
    for deployment in of_kind(installed, "Deployment").values():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert parse_arguments(container["command"][3:] + container["args"]).store == "$(PERENNIAL_ONLINE)"
        assert container["envFrom"] == [{"configMapRef": {"name": "perennial"}}]


def test_the_server_understands_its_arguments(installed: Objects) -> None:
    aliases = {"flights-stable": "champion", "flights-canary": "challenger", "flights-shadow": "challenger"}
    for name, deployment in of_kind(installed, "Deployment").items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        options, port = parse_arguments(container["command"][3:] + container["args"]), container["ports"][0]
        assert (options.model, options.alias, options.port) == ("flights", aliases[name], port["containerPort"])
        assert deployment["spec"]["template"]["metadata"]["labels"]["perennial.dev/follows"] == aliases[name]
