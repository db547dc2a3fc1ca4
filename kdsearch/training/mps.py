"""NVIDIA's Multi-Process Service: whether processes of this machine share a GPU through it. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_FOLDER = "/tmp/nvidia-mps"


def mps_is_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the control daemon's socket is there: in CUDA_MPS_PIPE_DIRECTORY, or in the default folder.

    A process that finds it connects to it by itself when it first uses CUDA; without it a GPU is shared by turns.
    Whether the daemon behind the socket is alive is not looked at.
    """
    return (Path(environment.get("CUDA_MPS_PIPE_DIRECTORY") or DEFAULT_FOLDER) / "control").exists()
