"""LightGBM's wheel links the system's OpenMP runtime, which a bare Debian lacks; torch brings one along. Import me first."""

import ctypes
import importlib.util
from pathlib import Path

RUNTIME = "libgomp.so.1"


def load() -> None:
    """Have the runtime loaded before LightGBM asks for it; the system's where there is one. Raises OSError without any."""
    try:
        ctypes.CDLL(RUNTIME)
    except OSError:
        torch = importlib.util.find_spec("torch")
        places = torch.submodule_search_locations if torch else None
        if not places:
            raise
        ctypes.CDLL(str(Path(places[0]) / "lib" / RUNTIME))
