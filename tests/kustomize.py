"""What kubectl does: a kustomization's objects rendered, an object applied."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

KUBECTL = Path(sys.executable).parent / "kubectl"


def render(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def apply(kubeconfig: str, namespace: str, thing: Mapping[str, Any]) -> None:
    """As a person would; `namespace` is passed over where the kind has none. Raises CalledProcessError."""
    command = [KUBECTL, f"--kubeconfig={kubeconfig}", "apply", "--server-side", "--filename=-"]
    placed = {**thing, "metadata": {**thing["metadata"], "namespace": namespace}}
    subprocess.run(command, input=json.dumps(placed), text=True, check=True, capture_output=True)
