"""Print a digest of what every optimizer computes, a line for each ISA build. Equal bits have equal lines.

Usage: PYTHONPATH=tests python .ci/digest.py [--each]

All configurations of tests/cases.py take steps with dense gradients and, where they take them, with rows of a gradient,
exact, lazy and catching up, in all dtypes, with clipping and stochastic rounding in some steps. Then indices are
numbered and rows are summed. `--each` prints a line for each configuration, to find what differs between two compilers
or machines. The numbers come from NumPy's generator, which on another platform may round otherwise.
"""

import argparse
from hashlib import sha256

import numpy as np
from cases import CASES, DTYPES, state_of

import optimcore
from optimcore.kernels import isa as builds

SHAPES = {"conv": (16, 12, 3, 3), "matrix": (57, 101), "long": (20_001,), "one": (1,), "scalar": (), "table": (900, 17)}
CATCH_UP = ("Momentum", "Adam", "AdamOffload")


def numbers(seed, dtype):
    """Return an array of every shape by name."""
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape)).astype(dtype) for name, shape in SHAPES.items()}


def modes(case):
    """Return the values of use_lazy for gradients of rows; None: dense ones."""
    if case.lars or case.cls in ("Lamb", "AdaFactor"):
        return [None]
    return [None, True, False, *["catch_up"] * (case.cls in CATCH_UP)]


def add_steps(digest, case, dtype, lazy):
    """Take steps and add all state to the digest."""
    arrays = numbers(0, dtype)
    names = list(arrays)
    groups = [dict(params=names[:1], grad_centralization=True, weight_decay=0.05), dict(params=names[1:])]
    optimizer = case.build(arrays, groups, loss_scale=3.0)
    if lazy is not None:
        try:
            optimizer.use_lazy = lazy
        except (AttributeError, ValueError):
            return  # a class whose choice is fixed
    for step in range(3):
        gradients = numbers(step + 1, dtype)
        if lazy is not None:
            rows = np.random.default_rng(step).integers(0, 900, 700)
            gradients["table"] = optimcore.RowTensor(rows, gradients["table"][:700], (900, 17))
        optimizer.max_grad_norm = 1.0 if step == 1 else None
        optimizer.stochastic_rounding = step == 2
        optimizer(tuple(gradients.values()))
    optimizer.flush()
    for name, value in sorted(state_of(optimizer).items()):
        digest.update(f"{name} {value!r}".encode())


def add_indices(digest):
    """Number indices and sum rows."""
    rng = np.random.default_rng(0)
    keys = rng.integers(-(2**62), 2**62, 5000)[rng.integers(0, 5000, 60_000)]
    for part in optimcore.unique(keys, return_inverse=True, return_counts=True):
        digest.update(part.tobytes())
    for dtype in DTYPES.values():
        for part in optimcore.merge_rows(keys[:700] % 300, rng.standard_normal((700, 17)).astype(dtype)):
            digest.update(part.tobytes())


def main():
    """Print the digests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", action="store_true", help="a line for each configuration")
    options = parser.parse_args()
    optimcore.set_thread_threshold(0)
    for isa in builds.available_isas():
        builds.use_isa(isa)
        total = sha256()
        for case in CASES:
            for name, dtype in DTYPES.items():
                digest = sha256()
                for lazy in modes(case):
                    add_steps(digest, case, dtype, lazy)
                total.update(digest.digest())
                if options.each:
                    print(f"{isa:9} {digest.hexdigest()[:16]} {name} {case}")
        add_indices(total)
        print(f"{isa:9} {total.hexdigest()[:32]}")


if __name__ == "__main__":
    main()
