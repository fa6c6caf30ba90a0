"""What one writes for a whole step on a network.

Ways of torch change gradients in place, which is fastest and right, because a training has new ones in every step. A
check brings them back between its steps; the measurement does not, since time does not depend on them.
"""

from functools import partial

import numpy as np
from workloads import Run
from workloads.pipeline import DECAY, LOSS_SCALE, MAX_NORM

from .dense import OPTAX, by_numpy, by_optax, torch_tensors
from .peer import Peer

__all__ = ["PEERS"]


def momentum_by_numpy(run, threads):
    """Return the Run of NumPy's form of all that comes before Momentum, and of Momentum."""
    parameters, hyper = run.parameters, run.rule.arguments
    moments = [np.zeros_like(w) for w in parameters]

    def step():
        gradients = [g / LOSS_SCALE for g in run.gradients]
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
        for w, m, g in zip(parameters, moments, gradients, strict=True):
            if norm > MAX_NORM:
                g *= MAX_NORM / norm
            g += DECAY * w
            if g.ndim == 4:
                g -= g.mean(axis=(1, 2, 3), keepdims=True)
            m *= hyper["momentum"]
            m += g
            w -= hyper["learning_rate"] * m

    return Run(step, lambda: parameters)


class Torch:
    """Tensors with gradients, and an optimizer that is made of them.

    Parameters
    ----------
    run : Run
        Of optimcore.
    threads : int
        How many torch may use.
    mode : str
        "foreach" or "fused".
    **more
        Arguments of torch's SGD.
    """

    def __init__(self, run, threads, mode, **more):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.hyper = torch, run.rule.arguments
        self.tensors = torch_tensors(run)
        self.gradients = [w.grad for w in self.tensors]
        self.kept = [g.clone() for g in self.gradients]
        self.sgd = torch.optim.SGD(self.tensors, lr=self.hyper["learning_rate"], momentum=0.9, **more, **{mode: True})
        convolutions = [w for w in self.tensors if w.ndim == 4]
        self.kernels = [w.detach() for w in convolutions]
        self.kernel_gradients = [w.grad for w in convolutions]

    def run_of(self, step):
        """Return the Run of a function."""
        return Run(
            self.torch.no_grad()(step),
            lambda: [w.detach().numpy() for w in self.tensors],
            restore=lambda: self.torch._foreach_copy_(self.gradients, self.kept),
        )

    def clip(self):
        """Have torch clip the gradients."""
        self.torch.nn.utils.clip_grad_norm_(self.tensors, MAX_NORM, foreach=True)

    def clip_factor(self):
        """Return the factor that unscales and clips at once, as a tensor."""
        torch = self.torch
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.gradients)))
        return (MAX_NORM / (norm / LOSS_SCALE)).clamp(max=1.0) / LOSS_SCALE

    def centralize(self):
        """Decay gradients, and subtract the mean from those of convolutions."""
        self.torch._foreach_add_(self.gradients, [w.detach() for w in self.tensors], alpha=DECAY)
        for g in self.kernel_gradients:
            g.sub_(g.mean(dim=(1, 2, 3), keepdim=True))


def momentum_by_steps(run, threads, mode):
    """Return the Run of one thing after the other, as it stands in tutorials."""
    t = Torch(run, threads, mode)

    def step():
        t.torch._foreach_mul_(t.gradients, 1 / LOSS_SCALE)
        t.clip()
        t.centralize()
        t.sgd.step()

    return t.run_of(step)


def momentum_folded(run, threads, mode):
    """Return the Run with unscaling folded into clipping."""
    t = Torch(run, threads, mode)

    def step():
        t.torch._foreach_mul_(t.gradients, t.clip_factor())
        t.centralize()
        t.sgd.step()

    return t.run_of(step)


def momentum_in_fused(run, threads):
    """Return the Run with the factor and the decay given to the fused SGD, as a GradScaler does.

    What centralization takes from the gradient and from the decay is taken before: both are constant in a channel.
    """
    t = Torch(run, threads, "fused", weight_decay=DECAY)

    def step():
        factor = t.clip_factor()
        for w, g in zip(t.kernels, t.kernel_gradients, strict=True):
            means = w.mean(dim=(1, 2, 3), keepdim=True) * (DECAY / factor)
            g.sub_(means.add_(g.mean(dim=(1, 2, 3), keepdim=True)))
        t.sgd.grad_scale = 1 / factor
        t.sgd.step()

    return t.run_of(step)


def lars_by_torch(run, threads, mode):
    """Return the Run of LARS in foreach functions, then SGD."""
    t = Torch(run, threads, mode)
    torch, decay = t.torch, t.hyper["weight_decay"]
    weights = [w.detach() for w in t.tensors]

    def step():
        norms = torch.stack(torch._foreach_norm(weights))
        divisor = torch.stack(torch._foreach_norm(t.gradients)) + decay * norms + 1e-5
        torch._foreach_add_(t.gradients, weights, alpha=decay)
        torch._foreach_mul_(t.gradients, list((1e-3 * norms / divisor).unbind()))
        t.sgd.step()

    return t.run_of(step)


def lamb_by_torch(run, threads):
    """Return the Run of LAMB in foreach functions."""
    t = Torch(run, threads, "foreach")
    torch, lr, decay = t.torch, t.hyper["learning_rate"], t.hyper["weight_decay"]
    weights = [w.detach() for w in t.tensors]
    m, v = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    count = 0

    def step():
        nonlocal count
        count += 1
        torch._foreach_lerp_(m, t.gradients, 0.1)
        torch._foreach_mul_(v, 0.999)
        torch._foreach_addcmul_(v, t.gradients, t.gradients, 0.001)
        directions = torch._foreach_sqrt(v)
        torch._foreach_div_(directions, (1 - 0.999**count) ** 0.5)
        torch._foreach_add_(directions, 1e-6)
        torch._foreach_reciprocal_(directions)
        torch._foreach_mul_(directions, m)
        torch._foreach_div_(directions, 1 - 0.9**count)
        torch._foreach_add_(directions, weights, alpha=decay)
        trust = torch.stack(torch._foreach_norm(weights)) / torch.stack(torch._foreach_norm(directions))
        torch._foreach_mul_(directions, list((-lr * trust).unbind()))
        torch._foreach_add_(weights, directions)

    return t.run_of(step)


PEERS = [
    Peer("numpy", "numpy", momentum_by_numpy, ("momentum",), threads=(1,)),
    Peer("numpy", "numpy", by_numpy, ("lamb", "lars"), threads=(1,)),
    *(
        Peer(f"torch {how}, {mode}", "torch", partial(make, mode=mode), ("momentum",))
        for how, make in (("step by step", momentum_by_steps), ("folded", momentum_folded))
        for mode in ("foreach", "fused")
    ),
    Peer("torch in fused", "torch", momentum_in_fused, ("momentum",)),
    *(Peer(f"torch {mode}", "torch", partial(lars_by_torch, mode=mode), ("lars",)) for mode in ("foreach", "fused")),
    Peer("torch foreach", "torch", lamb_by_torch, ("lamb",)),
    Peer("optax", "optax", by_optax, [name for name in OPTAX if name == "lamb"], threads=(2,)),
]
