"""What is spent around the update of a few elements."""

import pytest
from workloads import WORKLOADS


@pytest.mark.parametrize("workload", [w for w in WORKLOADS.values() if w.group == "overhead"], ids=lambda w: w.id)
def test_overhead(measure, workload):
    """The time of a call; it never takes a second thread."""
    measure(workload, workload.make().step, 1)
