"""What updates rows elsewhere: the same rule on the same batch, from indices that repeat to the table."""

from functools import partial
from itertools import count

import numpy as np
from workloads.workload import Run

from . import frameworks
from .merge import merge_by_numpy, merge_by_tensorflow
from .peer import Peer

__all__ = ["PEERS"]

ADAM = dict(lr=1e-4, beta1=0.9, beta2=0.999, eps=1e-8)
ADAGRAD = dict(lr=1e-4, eps=1e-8)
FTRL = dict(lr=1e-2, l1=1e-3, l2=1e-3, lr_power=-0.5)


def _run(run, step):
    """Return the Run of a step that changes the table and the slots of `run`."""
    return Run(step, lambda: [array[run.seen] for array in (run.table, *run.slots)])


# ---- NumPy


def corrected_rate(t):
    """Return Adam's rate with the bias correction of step t >= 1."""
    return ADAM["lr"] * (1 - ADAM["beta2"] ** t) ** 0.5 / (1 - ADAM["beta1"] ** t)


def numpy_adam(w, g, m, v, t):
    """Update arrays in place."""
    m += (g - m) * (1 - ADAM["beta1"])
    v += (g * g - v) * (1 - ADAM["beta2"])
    w -= corrected_rate(t) * m / (np.sqrt(v) + ADAM["eps"])


def numpy_adagrad(w, g, accum, t):
    """Update arrays in place."""
    accum += g * g
    w -= ADAGRAD["lr"] * g / (np.sqrt(accum) + ADAGRAD["eps"])


def numpy_ftrl(w, g, accum, linear, t):
    """Update arrays in place."""
    before = np.sqrt(accum)
    accum += g * g
    root = np.sqrt(accum)
    linear += g - (root - before) / FTRL["lr"] * w
    shrunk = np.sign(linear) * FTRL["l1"] - linear
    w[...] = np.where(np.abs(linear) > FTRL["l1"], shrunk / (root / FTRL["lr"] + 2 * FTRL["l2"]), 0)


def by_numpy(rule, run, threads):
    """Return the rule on merged rows that are taken out of the table and put back."""
    arrays, steps = (run.table, *run.slots), count(1)

    def step():
        rows, g = merge_by_numpy(run.indices, run.values)
        w, *slots = [array[rows] for array in arrays]
        rule(w, g, *slots, next(steps))
        for array, part in zip(arrays, (w, *slots), strict=True):
            array[rows] = part

    return _run(run, step)


def by_dense_numpy(run, threads):
    """Return exact Adam: the dense rule, with the rows in a dense gradient."""
    steps, dense = count(1), np.zeros_like(run.table)

    def step():
        rows, g = merge_by_numpy(run.indices, run.values)
        dense[rows] = g
        numpy_adam(run.table, dense, *run.slots, next(steps))
        dense[rows] = 0

    return _run(run, step)


# ---- torch


def by_torch(make_optimizer, run, threads):
    """Return the step of a torch optimizer, with the sparse gradient that an embedding would leave."""
    torch = frameworks.torch(threads)
    table = torch.nn.Parameter(torch.from_numpy(run.table))
    optimizer, slots = make_optimizer(torch, table, [torch.from_numpy(slot) for slot in run.slots])
    indices, values = torch.from_numpy(run.indices)[None], torch.from_numpy(run.values)

    def step():
        table.grad = torch.sparse_coo_tensor(indices, values, table.shape, check_invariants=False)
        optimizer.step()

    optimizer.state[table].update(slots)  # shares memory with the slots of `run`
    return _run(run, step)


def torch_sparse_adam(torch, table, slots):
    """Return SparseAdam and its state."""
    optimizer = torch.optim.SparseAdam([table], ADAM["lr"], (ADAM["beta1"], ADAM["beta2"]), ADAM["eps"])
    return optimizer, dict(step=0, exp_avg=slots[0], exp_avg_sq=slots[1])


def torch_adagrad(torch, table, slots):
    """Return Adagrad, which takes sparse gradients too, and its state."""
    optimizer = torch.optim.Adagrad([table], ADAGRAD["lr"], eps=ADAGRAD["eps"], initial_accumulator_value=0.1)
    return optimizer, dict(sum=slots[0])


def by_dense_torch(run, threads):
    """Return torch's fused Adam; it takes no sparse gradient, so the batch is added up in a dense one."""
    torch = frameworks.torch(threads)
    table = torch.nn.Parameter(torch.from_numpy(run.table))
    optimizer = torch.optim.Adam([table], ADAM["lr"], (ADAM["beta1"], ADAM["beta2"]), ADAM["eps"], fused=True)
    m, v = map(torch.from_numpy, run.slots)
    optimizer.state[table].update(step=torch.tensor(0.0), exp_avg=m, exp_avg_sq=v)
    indices, values = torch.from_numpy(run.indices), torch.from_numpy(run.values)
    table.grad = torch.zeros_like(table)

    def step():
        table.grad.zero_()
        table.grad.index_add_(0, indices, values)
        optimizer.step()

    return _run(run, step)


# ---- FBGEMM


def by_fbgemm(run, threads):
    """Return the update of FBGEMM's table-batched embedding with EXACT_ADAGRAD, without the lookup before it.

    Its form for bags, with one index in each, is ten times as fast as that for single rows.
    """
    torch = frameworks.torch(threads)
    import fbgemm_gpu  # noqa: F401  what registers the operators

    table, accum = torch.from_numpy(run.table.reshape(-1)), torch.from_numpy(run.slots[0].reshape(-1))
    rows, width = run.table.shape
    indices, values = torch.from_numpy(run.indices), torch.from_numpy(run.values)
    ints, longs = partial(torch.tensor, dtype=torch.int32), partial(torch.tensor, dtype=torch.int64)
    rate, place, start = torch.tensor(ADAGRAD["lr"]), ints([0]), longs([0])  # of the only table, in main memory
    columns, sizes, bits = ints([0, width]), longs([0, rows]), rows.bit_length()
    bags, no_weights = torch.arange(len(indices) + 1), torch.tensor([])
    update = torch.ops.fbgemm.split_embedding_backward_codegen_adagrad_cpu

    def step():
        update(
            *(values, table, place, start, columns, width, sizes, bits, indices, bags),
            *(0, no_weights, False, accum, place, start, rate, ADAGRAD["eps"]),  # 0: bags are summed
        )

    return _run(run, step)


# ---- TensorFlow


def by_tensorflow(run, threads):
    """Return the kernel of FTRL on rows that are merged first, as TensorFlow's optimizers merge them.

    Keras' own FTRL takes a hundred times as long: its gradients of rows become dense.
    """
    tensorflow = frameworks.tensorflow()
    variables = [tensorflow.Variable(array) for array in (run.table, *run.slots)]
    var, accum, linear = [variable.handle for variable in variables]
    indices, values = tensorflow.constant(run.indices), tensorflow.constant(run.values)
    hyper = {name: tensorflow.constant(value) for name, value in FTRL.items()}
    apply = tensorflow.raw_ops.ResourceSparseApplyFtrl

    def step():
        rows, g = merge_by_tensorflow(tensorflow, indices, values)
        apply(var=var, accum=accum, linear=linear, grad=g, indices=rows, **hyper)

    return Run(step, lambda: [variable.numpy()[run.seen] for variable in variables])


# ---- MindSpore


def by_mindspore(make_call, run, threads):
    """Return a fused kernel of MindSpore, which merges by itself; it takes int32 indices."""
    mindspore = frameworks.mindspore()
    variables = [mindspore.Parameter(mindspore.Tensor(array)) for array in (run.table, *run.slots)]
    indices, values = mindspore.Tensor(run.indices.astype(np.int32)), mindspore.Tensor(run.values)
    call = make_call(mindspore)

    def step():
        call(variables, values, indices)[0].asnumpy()  # waits, and does not copy

    return Run(step, lambda: [variable.asnumpy()[run.seen] for variable in variables])


def mindspore_adam(name, mindspore):
    """Return a call of FusedSparseAdam, which is exact, or of FusedSparseLazyAdam."""
    kernel, steps = frameworks.quietly(getattr(mindspore.ops, name)), count(1)
    rate, beta1, beta2, eps = [mindspore.Tensor(np.float32(value)) for value in ADAM.values()]

    def call(variables, values, indices):
        t = next(steps)
        powers = [mindspore.Tensor(np.float32(ADAM[name] ** t)) for name in ("beta1", "beta2")]
        return kernel(*variables, *powers, rate, beta1, beta2, eps, values, indices)

    return call


def mindspore_ftrl(mindspore):
    """Return a call of FusedSparseFtrl."""
    kernel = frameworks.quietly(mindspore.ops.FusedSparseFtrl, **FTRL)
    return lambda variables, values, indices: kernel(*variables, values, indices)


RULES = {"lazy_adam": numpy_adam, "adagrad": numpy_adagrad, "ftrl": numpy_ftrl}
PEERS = [
    *(Peer("numpy", "numpy", partial(by_numpy, rule), (name,), threads=(1,)) for name, rule in RULES.items()),
    Peer("numpy", "numpy", by_dense_numpy, ("adam",), threads=(1,)),
    Peer("torch SparseAdam", "torch", partial(by_torch, torch_sparse_adam), ("lazy_adam",)),
    Peer("torch Adagrad", "torch", partial(by_torch, torch_adagrad), ("adagrad",)),
    Peer("torch fused Adam", "torch", by_dense_torch, ("adam",)),
    Peer("fbgemm EXACT_ADAGRAD", "fbgemm_gpu", by_fbgemm, ("adagrad",)),
    Peer("tensorflow SparseApplyFtrl", "tensorflow", by_tensorflow, ("ftrl",), threads=(2,)),
    *(
        Peer(f"mindspore {kernel}", "mindspore", partial(by_mindspore, make_call), (name,), threads=(2,))
        for kernel, name, make_call in (
            ("FusedSparseLazyAdam", "lazy_adam", partial(mindspore_adam, "FusedSparseLazyAdam")),
            ("FusedSparseAdam", "adam", partial(mindspore_adam, "FusedSparseAdam")),
            ("FusedSparseFtrl", "ftrl", mindspore_ftrl),
        )
    ),
]
