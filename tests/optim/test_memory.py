"""A step needs no memory beside parameters, gradients and slots but what a few chunks take."""

import subprocess
import sys

import pytest

SIZE = 4_000_000  # elements: 16 MB of float32
ALLOWED = 2 * 10**6  # bytes: for each of two threads a chunk and its stack, and what Python itself takes

# Prints by how many bytes resident memory rose at most during the third step.
STEPS = """
import sys
import numpy as np
import optimcore as nn

def status(key):
    (kilobytes,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith(key)]
    return 1024 * int(kilobytes)

make, dtype, shape = sys.argv[1], sys.argv[2], eval(sys.argv[3])
if dtype == "bfloat16":
    import ml_dtypes
    dtype = ml_dtypes.bfloat16
nn.set_num_threads(2)
gradients = (np.full(shape, 1e-3, dtype),)
opt = eval(make)([nn.Parameter(np.ones(shape, dtype), name="w")])
opt(gradients)
opt(gradients)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")     # the peak begins anew
before = status("VmRSS")
opt(gradients)
print(status("VmHWM") - before)
"""

MAKERS = {
    "Adam": "lambda p: nn.Adam(p, weight_decay=0.01, loss_scale=2.0)",
    "centralized": "lambda p: nn.Momentum([dict(params=p, grad_centralization=True)], 0.1, 0.9)",
    "Lamb": "lambda p: nn.Lamb(p, 0.1)",
    "LARS": "lambda p: nn.LARS(nn.Momentum(p, 0.1, 0.9))",
    "AdaFactor": "lambda p: nn.AdaFactor(p)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of resident memory are read from /proc")
@pytest.mark.parametrize("shape", [(SIZE,), (50, 40, 2000)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", MAKERS)
def test_peak_of_a_step(name, dtype, shape):
    result = subprocess.run(
        [sys.executable, "-c", STEPS, MAKERS[name], dtype, str(shape)], capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    assert int(result.stdout) <= ALLOWED
