"""Programs that tests interrupt."""

import signal


def heed():
    """Undo what a shell does to the interrupts of what it runs in the background; a `preexec_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
