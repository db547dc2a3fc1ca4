"""Whether a cluster lets us in: its token, and its versions of Ray and Python, told in a sentence."""

from __future__ import annotations

import os
import re
from typing import Any

from kdsearch.errors import UserError

SECONDS = 10.0


def check_token(head: str) -> None:
    """Raise UserError where the head at `HOST:PORT` refuses our token, ConnectionError where there is no head.

    Ray itself would ask again for 20 seconds, or for minutes where something else listens.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import AuthenticationError

    messages: Any = gcs_service_pb2
    try:
        with init_grpc_channel(head) as channel:
            NodeInfoGcsServiceStub(channel).GetClusterId(messages.GetClusterIdRequest(), timeout=SECONDS)
    except AuthenticationError:  # there is no token to show
        raise UserError(refused(head)) from None
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise UserError(refused(head)) from None
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise ConnectionError("what listens there is no Ray head") from None


def refused(cluster: str) -> str:
    """The sentence that a cluster refuses our token: which one, and whose it should be."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        mend = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a copy of the cluster's token"
        return f"{cluster} refuses who shows no token: {mend}"
    source = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    source = "RAY_AUTH_TOKEN" if "RAY_AUTH_TOKEN" in os.environ else source
    return f"{cluster} refuses the token of {source}: it is not the one that the cluster was started with"


def other_versions(cluster: str, error: BaseException) -> UserError | None:
    """Ray's error about versions that differ as a sentence; None for other errors."""
    if not str(error).startswith("Version mismatch"):
        return None
    found = [" ".join(pair) for pair in re.findall(r"(Ray|Python): (\S+)", str(error))]
    there, here = ", ".join(found[: len(found) // 2]), ", ".join(found[len(found) // 2 :])
    return UserError(f"the cluster at {cluster} has {there}, and this is {here}: install the same on both")
