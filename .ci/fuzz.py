"""Step optimizers at random, and compare what can be compared.

Usage: PYTHONPATH=tests python .ci/fuzz.py [--seconds 300] [--seed FIRST] [--rounds N]

Each round has a seed of its own: `--seed N --rounds 1` repeats one. A round takes an optimizer of tests/cases.py with
random shapes, dtypes, memory layouts, row gradients, clipping, stochastic rounding, catching up and threads. It checks:

- a twin that does the same in one thread and on another ISA build has the same bits,
- with plain gradients, the float64 reference agrees,
- a step that raises an error has changed nothing, and the error is one that the library means.

Another part of a round compares unique, merge_rows, global_norm, all_finite and clip_by_global_norm with NumPy. Exits
with 1 at the first difference. Built with sanitizers (see .ci/sanitize), it finds what touches foreign memory.
"""

import argparse
import sys
import traceback
from collections import Counter
from time import monotonic

import numpy as np
import reference
from cases import CASES, DTYPES, TOLERANCE, state_of

import optimcore
from optimcore.kernels import isa as builds

COMPUTE = {"float64": np.float64}
MEANT = (TypeError, ValueError, IndexError, NotImplementedError)
LONGEST = 60_000  # elements


class Difference(AssertionError):
    """Two results that should be equal are not."""


class Round:
    """One optimizer with its random generator."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.notes = []

    def maybe(self, chance):
        """Return True with this chance."""
        return self.rng.random() < chance

    def pick(self, *choices):
        """Return one of the arguments."""
        return choices[self.rng.integers(len(choices))]

    def shape(self):
        """Return a random shape: often small, sometimes empty, 0-d or larger than a chunk."""
        rng = self.rng
        return self.pick(
            lambda: (),
            lambda: (0,),
            lambda: tuple(map(int, rng.integers(0, 4, rng.integers(1, 5)))),
            lambda: (int(rng.integers(1, LONGEST)),),
            lambda: tuple(map(int, rng.integers(1, 250, 2))),
            lambda: tuple(map(int, rng.integers(1, 9, 4))),
            lambda: (int(rng.integers(1, 3000)), int(rng.integers(1, 20))),
        )()

    def numbers(self, shape, dtype, special=False):
        """Return random numbers, with a NaN, an infinity or a number at the end of the range if `special`."""
        a = self.rng.standard_normal(shape) * 10.0 ** self.rng.uniform(-3, 1)
        a = np.asarray(a + np.copysign(1e-3, a))
        if special and a.size:
            a.flat[self.rng.integers(a.size)] = self.pick(np.nan, np.inf, -np.inf, 0.0, 1e38, 1e-42)
        with np.errstate(all="ignore"):
            return a.astype(dtype)

    def laid_out(self, a):
        """Return the same numbers in another memory order, unaligned, strided, read-only or byte-swapped."""
        kind = self.rng.integers(7)
        if kind == 0 and a.ndim:
            return np.asfortranarray(a)
        if kind == 1 and a.ndim:
            wide = np.empty((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
            wide[..., ::2] = a
            return wide[..., ::2]
        if kind == 2:
            memory = np.empty(a.nbytes + 16, np.uint8)
            start = int(self.rng.integers(1, 16))
            moved = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape) if a.size else a
            moved[...] = a
            return moved
        if kind == 3 and a.dtype.kind == "f":
            return a.astype(a.dtype.newbyteorder())
        if kind == 4:
            a.flags.writeable = False
        return a

    def rows(self, shape, dtype, unique):
        """Return a RowTensor for a table of this shape."""
        n = shape[0]
        k = int(self.pick(0, 1, 3, 17, 300, 2000)) if n else 0
        indices = (
            self.pick(
                lambda: self.rng.integers(0, n, k),
                lambda: np.minimum(self.rng.zipf(1.2, k) - 1, n - 1),
                lambda: np.full(k, self.rng.integers(n)),
            )()
            if n
            else np.zeros(0, np.int64)
        )
        if not unique:
            indices = self.rng.permutation(n)[:k]
        indices = indices.astype(self.pick(np.int64, np.int64, np.int32, np.uint32))
        return optimcore.RowTensor(indices, self.numbers((len(indices), *shape[1:]), dtype), shape)

    def set_runtime(self, threads, isa):
        """Set threads and ISA build for the next optimizer."""
        optimcore.set_num_threads(threads)
        builds.use_isa(isa)

    def step_twins(self):
        """Step an optimizer and its twin."""
        case = self.pick(*CASES)
        dtypes = [self.pick("float32", *DTYPES) for _ in range(self.rng.integers(1, 7))]
        arrays = {
            f"{self.pick('w', 'beta', 'conv')}{i}": self.numbers(self.shape(), DTYPES[dtype])
            for i, dtype in enumerate(dtypes)
        }
        names, groups, extra = list(arrays), None, {}
        if self.maybe(0.5):
            extra = dict(weight_decay=self.pick(0.0, 0.01), loss_scale=self.pick(1.0, 3.0, 1024.0))
        if len(names) > 1 and self.maybe(0.4):
            cut = int(self.rng.integers(1, len(names)))
            groups = [
                dict(params=names[:cut], grad_centralization=self.maybe(0.7)),
                dict(params=names[cut:], weight_decay=0.02),
            ]
        settings = dict(
            max_grad_norm=self.pick(None, None, 0.1, 100.0),
            stochastic_rounding=self.maybe(0.3),
            use_lazy=self.pick(None, None, True, False, "catch_up"),
            unique=self.maybe(0.8),
        )
        self.notes += [case, {n: (a.shape, a.dtype.name) for n, a in arrays.items()}, groups, extra, settings]
        optimcore.set_thread_threshold(int(self.pick(0, 0, 1 << 16)))
        isas = builds.available_isas()
        twins = []
        for threads, isa in ((int(self.pick(1, 2, 3, 4)), self.pick(*isas)), (1, self.pick(*isas))):
            self.set_runtime(threads, isa)
            optimizer = case.build({n: a.copy() for n, a in arrays.items()}, groups, **extra)
            for name, value in settings.items():
                try:
                    if value is not None:
                        setattr(optimizer, name, value)
                except (AttributeError, *MEANT):
                    pass  # a class without this setting
            twins.append((threads, isa, optimizer))
        is_plain = not (settings["max_grad_norm"] or settings["stochastic_rounding"])
        oracle = case.oracle(arrays, groups, **extra) if is_plain else None
        for step in range(self.rng.integers(1, 6)):
            gradients, comparable = self.gradients(twins[0][2], settings["unique"])
            oracle = oracle if comparable else None
            states = [self.one_step(twin, gradients) for twin in twins]
            if twins[0][2].global_step != step + 1:  # refused
                oracle = None
            self.notes.append(f"step {step}")
            self.compare_twins(*states)
            if oracle is not None:
                oracle.step([None if g is None else g.astype(np.float64) for g in gradients])
        for _, _, optimizer in twins:
            optimizer.flush()
        self.compare_twins(*(arrays_of(optimizer) for _, _, optimizer in twins))
        if oracle is not None:
            self.compare_oracle(twins[0][2], oracle)

    def gradients(self, optimizer, unique):
        """Return gradients for a step, and whether the oracle takes them as they are."""
        gradients, comparable = [], True
        for p in optimizer.parameters:
            dtype = p.dtype if self.maybe(0.7) else self.pick(*DTYPES.values())
            if self.maybe(0.1):
                gradients.append(None)
            elif p.ndim and self.maybe(0.3):
                gradients.append(self.rows(p.shape, dtype, unique))
                comparable = False
            else:
                special = self.maybe(0.05)
                gradients.append(self.laid_out(self.numbers(p.shape, dtype, special)))
                comparable = comparable and not special and dtype == p.dtype
        return tuple(gradients), comparable

    def one_step(self, twin, gradients):
        """Do a step; return all state afterwards. An error must have changed nothing."""
        threads, isa, optimizer = twin
        self.set_runtime(threads, isa)
        before = state_of(optimizer)
        try:
            with np.errstate(all="ignore"):
                optimizer(gradients)
        except MEANT as error:
            self.notes.append(repr(error)[:120])
            if state_of(optimizer) != before:
                raise Difference(f"changed by a step that raised {error!r}") from error
        return arrays_of(optimizer)

    def compare_twins(self, one, other):
        """Compare two states, all of whose NaNs are the same."""
        for name, value in one.items():
            if not np.array_equal(value, other[name], equal_nan=True):
                raise Difference(f"{name} differs with other threads or another ISA build")

    def compare_oracle(self, optimizer, oracle):
        """Compare parameters with the float64 reference."""
        for p in optimizer.parameters:
            found, expected = p.data.astype(np.float64), oracle.w[p.name]
            scale = np.abs(expected).max(initial=1.0)
            limit = 20 * TOLERANCE[p.dtype.name] * scale
            if np.isfinite(expected).all() and np.abs(found - expected).max(initial=0.0) > limit:
                raise Difference(f"{p.name} is {np.abs(found - expected).max()} away from the reference, limit {limit}")

    def call_helpers(self):
        """Compare the functions on gradients and indices with NumPy."""
        self.set_runtime(int(self.pick(1, 2, 4)), self.pick(*builds.available_isas()))
        span, k = self.pick(3, 1000, 2**20, 2**31 - 1, 2**62), int(self.pick(0, 1, 100, 5000, 60_000))
        indices = self.rng.integers(-(span // 2) if self.maybe(0.5) else 0, span, k)
        if span < 2**31 and self.maybe(0.5):
            indices = indices.astype(np.int32)
        self.notes += ["unique", span, k]
        found, inverse, counts = optimcore.unique(indices, return_inverse=True, return_counts=True)
        _, first = np.unique(indices, return_index=True)
        expect(np.array_equal(found, indices[np.sort(first)]), "unique values")
        expect(np.array_equal(found[inverse], indices) and counts.sum() == k, "inverse or counts")
        expect(np.array_equal(np.bincount(inverse, minlength=len(found)), counts), "counts")
        few = np.abs(indices[:2000].astype(np.int64) // 2)
        values = self.numbers((len(few), *self.pick((), (1,), (5,), (0,), (2, 3))), np.float64)
        rows, sums = optimcore.merge_rows(few, values)
        merged = reference.merge(reference.Rows(few, values))
        expect(np.array_equal(rows, merged.indices) and np.allclose(sums, merged.values, 1e-9, 1e-9), "merge_rows")
        gradients = tuple(
            self.numbers(self.shape(), self.pick(*DTYPES.values())) for _ in range(self.rng.integers(0, 5))
        )
        squares = sum(float(np.square(g.astype(np.float64)).sum()) for g in gradients)
        expect(np.isclose(optimcore.global_norm(gradients), np.sqrt(squares), 1e-6), "global_norm")
        expect(optimcore.all_finite(gradients), "all_finite")
        clipped = optimcore.clip_by_global_norm(gradients, 0.5)
        norm = np.sqrt(sum(float(np.square(g.astype(np.float64)).sum()) for g in clipped))
        expect(norm <= 0.5 * 1.02, "clip_by_global_norm")


def expect(holds, what):
    """Raise Difference if something does not hold."""
    if not holds:
        raise Difference(f"{what} differ from NumPy")


def arrays_of(optimizer):
    """Return a copy of all parameters and slots by name."""
    state = {p.name: p.data for p in optimizer.parameters}
    for name, value in vars(getattr(optimizer, "optimizer", optimizer)).items():
        if isinstance(value, optimcore.ParameterTuple):
            state |= {f"{name}/{p.name}": p.data for p in value}
    return {name: a.astype(np.float64 if a.dtype.itemsize == 8 else np.float32) for name, a in state.items()}


def main():
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="at most; by default as many as time allows")
    options = parser.parse_args()
    end, errors, done = monotonic() + options.seconds, Counter(), 0
    while done < options.rounds and monotonic() < end:
        seed = options.seed + done
        one = Round(seed)
        try:
            one.step_twins()
            if seed % 3 == 0:
                one.call_helpers()
        except BaseException:
            traceback.print_exc()
            print(f"round with --seed {seed} --rounds 1 failed:", *one.notes, sep="\n  ", flush=True)
            return 1
        errors.update(note.partition("(")[0] for note in one.notes if isinstance(note, str) and "Error(" in note)
        done += 1
    print(f"{done} rounds from seed {options.seed} on, no difference; errors that were meant: {dict(errors)}")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
