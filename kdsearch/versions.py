"""Which versions made a result."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from kdsearch import __version__

PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna")


def versions() -> dict[str, str | None]:
    """Versions of Python, kdsearch and the libraries that matter; the git revision where run from a checkout."""
    found: dict[str, str | None] = {"python": platform.python_version(), "kdsearch": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found | {"revision": _revision()}


def _revision() -> str | None:
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
