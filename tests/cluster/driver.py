"""A search on a cluster, in a process of its own: `python -m tests.cluster.driver JSON`; see `searches.start`."""

from __future__ import annotations

import json
import sys

import numpy as np
import ray

from kdsearch.experiment import Experiment
from kdsearch.tuning import room, search
from tests.cluster import recording
from tests.tuning import stub

if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    for module in (stub, recording):  # workers cannot import the tests
        ray.cloudpickle.register_pickle_by_value(module)
    room.PATIENCE = plan["patience"]
    objectives = recording.RecordingObjectives(**plan["objectives"])
    # Larger than what Ray sends along with a call.
    objectives.data = recording.InMemorySet(objectives.log, np.zeros(4_000_000, np.uint8))
    search(Experiment(**plan["experiment"]), storage=plan["storage"], objectives=objectives, announce=print)
