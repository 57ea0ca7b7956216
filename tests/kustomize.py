"""Kubectl as tests use it: it renders a kustomization and applies an object."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

KUBECTL = Path(sys.executable).parent / "kubectl"


def render(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of the kustomization in the folder."""
    rendered = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(rendered.stdout))


def apply(kubeconfig: str, namespace: str, manifest: Mapping[str, Any]) -> None:
    """Apply a manifest in the namespace, which is passed over where the kind has none. Raises CalledProcessError."""
    command = [str(KUBECTL), f"--kubeconfig={kubeconfig}", "apply", "--server-side", "--filename=-"]
    placed = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
    subprocess.run(command, input=json.dumps(placed), text=True, check=True, capture_output=True)
