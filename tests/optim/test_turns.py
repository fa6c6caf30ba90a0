"""One thread at a time is inside an optimizer: others wait, or are refused."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest
from cases import CASES, conv_arrays, gradients_of, state_of

import optimcore as nn


def make(learning_rate=1.0, cls=nn.SGD, **options):
    w = np.zeros(2, np.float32)
    return w, cls([nn.Parameter(w, "w")], learning_rate=learning_rate, **options)


GRADIENT = (np.ones(2, np.float32),)


class Blocking(nn.LearningRateSchedule):
    """A rate of 0.1 (step + 1) that one thread, named A, waits for."""

    def __init__(self):
        super().__init__()
        self.is_inside, self.may_go = threading.Event(), threading.Event()

    def construct(self, step):
        rate = 0.1 * (step + 1)
        if threading.current_thread().name == "A":
            self.is_inside.set()
            self.may_go.wait()
        return rate


@pytest.fixture
def blocked():
    """Return parameter, optimizer and schedule; a thread reads the rate of its first step until `may_go` is set."""
    rate = Blocking()
    w, opt = make(rate)
    thread = threading.Thread(target=opt, args=(GRADIENT,), name="A")
    thread.start()
    rate.is_inside.wait()
    yield w, opt, rate
    rate.may_go.set()
    thread.join()


def test_second_thread_waits_for_its_turn(blocked):
    w, opt, rate = blocked
    other = threading.Thread(target=opt, args=(GRADIENT,), name="B")
    other.start()
    rate.may_go.set()
    other.join()
    assert opt.global_step == 2
    np.testing.assert_allclose(w, -0.3, rtol=1e-6)


def test_second_thread_is_refused_without_wait(blocked):
    w, opt, rate = blocked
    assert opt.wait is True
    opt.wait = False
    with pytest.raises(RuntimeError, match="another thread is inside a step of this one"):
        opt(GRADIENT)
    assert (opt.global_step, w.tolist()) == (0, [0, 0])


@pytest.mark.parametrize(
    "touch",
    [
        lambda opt: opt.flush(),
        lambda opt: setattr(opt, "learning_rate", 0.5),
        lambda opt: setattr(opt, "weight_decay", 0.5),
        lambda opt: setattr(opt, "loss_scale", 0.5),
        lambda opt: setattr(opt, "momentum", 0.5),
        lambda opt: setattr(opt, "global_step", 5),
        lambda opt: setattr(opt, "unique", False),
        lambda opt: setattr(opt, "use_lazy", True),
        lambda opt: setattr(opt, "max_grad_norm", 1.0),
        lambda opt: setattr(opt, "stochastic_rounding", True),
        lambda opt: setattr(opt, "rounding_seed", 1),
        lambda opt: opt.construct(GRADIENT),
    ],
)
def test_what_reads_or_writes_state_takes_its_turn(blocked, touch):
    w, opt, rate = blocked
    opt.wait = False
    with pytest.raises(RuntimeError, match="another thread is inside"):
        touch(opt)


def test_waiting_can_be_interrupted(blocked):
    class Interrupt(Exception):
        pass

    def handler(*_):
        raise Interrupt

    w, opt, rate = blocked
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1)).start()
        with pytest.raises(Interrupt):
            opt(GRADIENT)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert opt.global_step == 0


def test_threads_that_share_an_optimizer_lose_no_step():
    w, opt = make(1.0, nn.Momentum, momentum=0.0)

    def run():
        for _ in range(500):
            opt(GRADIENT)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (opt.global_step, w.tolist()) == (2000, [-2000, -2000])


class Again:
    """A gradient that takes a step of its own while it is read."""

    def __init__(self, opt):
        self.opt = opt

    def __array__(self, dtype=None, copy=None):
        self.opt(GRADIENT)
        return np.ones(2, np.float32)


class AgainRate(nn.LearningRateSchedule):
    def construct(self, step):
        return self.opt(GRADIENT) and 0.1


@pytest.mark.parametrize("wrapped", [False, True])
def test_same_thread_cannot_come_in_again(wrapped):
    w, inner = make()
    opt = nn.LARS(inner) if wrapped else inner
    for again in (opt, inner):
        with pytest.raises((RuntimeError, TypeError), match="this thread is inside a step of this one"):
            opt((Again(again),))
    assert (opt.global_step, w.tolist()) == (0, [0, 0])
    opt(GRADIENT)
    assert opt.global_step == 1


def test_schedule_cannot_take_a_step():
    rate = AgainRate()
    w, opt = make(rate)
    rate.opt = opt
    with pytest.raises(RuntimeError, match="this thread is inside a step"):
        opt(GRADIENT)
    assert (opt.global_step, w.tolist()) == (0, [0, 0])


def test_signal_handler_cannot_take_a_step():
    class Signalling(nn.LearningRateSchedule):
        def construct(self, step):
            signal.raise_signal(signal.SIGUSR1)
            return 0.1

    w, opt = make(Signalling())
    old = signal.signal(signal.SIGUSR1, lambda *_: opt(GRADIENT))
    try:
        with pytest.raises(RuntimeError, match="this thread is inside a step"):
            opt(GRADIENT)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert (opt.global_step, w.tolist()) == (0, [0, 0])


def test_construct_of_the_users_own_may_change_settings():
    class Warm(nn.Momentum):
        def construct(self, gradients):
            self.momentum = 0.5 * self.global_step
            self.learning_rate = 1.0
            self.flush()
            return super().construct(gradients)

    w, opt = make(0.0, Warm, momentum=0.9)
    opt(GRADIENT)
    opt(GRADIENT)
    assert (w.tolist(), opt.momentum, opt.global_step) == ([-2.5, -2.5], 0.5, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_child_of_a_fork_does_not_wait_for_threads_of_its_parent(blocked):
    w, opt, rate = blocked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CPython 3.12 warns of any fork with threads
        child = os.fork()
    if child == 0:
        signal.alarm(20)  # instead of waiting for ever
        threading.current_thread().name = "child"
        opt(GRADIENT)
        os._exit(0 if opt.global_step == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_of_two_threads_are_two_steps(case):
    arrays, twin = conv_arrays(), conv_arrays()
    shared, alone = case.build(arrays), case.build(twin)
    gradients = gradients_of(arrays)
    threads = [threading.Thread(target=shared, args=(gradients,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone(gradients)
    alone(gradients)
    assert state_of(shared) == state_of(alone)
