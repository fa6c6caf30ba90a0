"""Let Python threads share optimizers, whose steps have threads of their own. For a build that finds races.

Usage: python .ci/shared.py [--seconds 300] [--threads 4]

Every thread takes steps, at random, of optimizers that all threads share. A few of these wait for their turn, the
others refuse a second thread. Beside that, the number of threads changes, helpers go and come back, and indices are
numbered. In the end, parameters must be what as many steps of one thread make of them.
"""

import argparse
import sys
import threading
from time import monotonic, sleep

import numpy as np

import optimcore

SHAPES = {"table": (700, 40), "vector": (60_000,)}
MAKERS = [
    lambda ps: optimcore.SGD(ps, 1e-3),
    lambda ps: optimcore.Momentum(ps, 1e-3, 0.9),
    lambda ps: optimcore.Adam(ps, 1e-3),
    lambda ps: optimcore.Adagrad(ps, 1e-3),
    lambda ps: optimcore.ASGD(ps, 1e-3),
    lambda ps: optimcore.Rprop(ps, 1e-3),
    lambda ps: optimcore.FTRL(ps, 1e-3),
    lambda ps: optimcore.Lamb(ps, 1e-3),
    lambda ps: optimcore.LARS(optimcore.Momentum(ps, 1e-3, 0.9)),
    lambda ps: optimcore.AdaFactor(ps),
]
DENSE = (7, 8, 9)  # makers that take no rows
CATCH_UP, EXACT, CLIPPED = (1,), (2,), (3, 5)


class Shared:
    """An optimizer, its gradients, and how many steps it has taken."""

    def __init__(self, number):
        rng = np.random.default_rng(number)
        self.number = number
        self.parameters = [
            optimcore.Parameter(rng.standard_normal(shape).astype(np.float32), name) for name, shape in SHAPES.items()
        ]
        self.optimizer = MAKERS[number](self.parameters)
        if number in CLIPPED:
            self.optimizer.max_grad_norm = 1.0
        if number in CATCH_UP + EXACT:
            self.optimizer.use_lazy = "catch_up" if number in CATCH_UP else False
        if hasattr(self.optimizer, "wait"):
            self.optimizer.wait = number % 2 == 0
        table, vector = (rng.standard_normal(shape).astype(np.float32) for shape in SHAPES.values())
        if number not in DENSE:
            rows = rng.integers(0, len(table), 3000)
            table = optimcore.RowTensor(rows, rng.standard_normal((3000, 40)).astype(np.float32), table.shape)
        self.gradients = (table, vector)

    def step(self):
        """Take a step, unless another thread is inside one and this one is refused."""
        try:
            self.optimizer(self.gradients)
        except RuntimeError as error:
            if "another thread" not in str(error):
                raise
            return 0
        return 1

    def state(self):
        """Return all parameters as bytes."""
        self.optimizer.flush()
        return [p.data.tobytes() for p in self.parameters]


def work(number, optimizers, end, counts, failures):
    """What a thread does."""
    rng = np.random.default_rng(1000 + number)
    keys = rng.integers(0, 2**62, 200_000)
    try:
        while monotonic() < end and not failures:
            counts[number] += optimizers[rng.integers(len(optimizers))].step()
            chance = rng.random()
            if chance < 0.02:
                optimcore.unique(keys, return_inverse=True)
            elif chance < 0.05:
                optimcore.set_num_threads(int(rng.choice([2, 3, 4])))
            elif chance < 0.07:
                sleep(0.008)  # helpers go meanwhile
    except BaseException as error:
        failures.append(error)


def main():
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="how long (%(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="of Python (%(default)s)")
    options = parser.parse_args()
    optimcore.set_thread_threshold(0)
    optimcore.set_num_threads(2)
    optimizers = [Shared(number) for number in range(len(MAKERS))]
    counts, failures = [0] * options.threads, []
    end = monotonic() + options.seconds
    threads = [
        threading.Thread(target=work, args=(number, optimizers, end, counts, failures))
        for number in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    optimcore.set_num_threads(1)
    wrong = []
    for shared in optimizers:
        alone = Shared(shared.number)
        for _ in range(shared.optimizer.global_step):
            alone.step()
        if alone.state() != shared.state():
            wrong.append(type(shared.optimizer).__name__)
    steps = sum(shared.optimizer.global_step for shared in optimizers)
    print(f"{steps} steps in {options.threads} threads; each thread: {counts}; wrong: {wrong or 'none'}")
    return bool(wrong or steps != sum(counts) or not all(counts))


if __name__ == "__main__":
    sys.exit(main())
