"""The command line: ``python -m optimcore info`` and ``python -m optimcore train digits|words``."""

import argparse
import sys

import optimcore

PROGRAM = "python -m optimcore"


class Parser(argparse.ArgumentParser):
    """Report a wrong option in one line, without the usage in front."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser():
    """Return the parser of all commands; a command's `run` takes the parsed options."""
    # here, so that `import optimcore` and its tools do not pay for the trainings
    from optimcore.train import digits, words

    parser = Parser(prog=PROGRAM, description="Optimizers for CPU training in NumPy.")
    parser.add_argument("--version", action="version", version=f"optimcore {optimcore.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    info = commands.add_parser("info", help="show version, kernels, compiler and threads")
    info.set_defaults(run=lambda options: optimcore.show_config())

    trainings = commands.add_parser("train", help="train a network on real data").add_subparsers(
        dest="training", metavar="TRAINING", required=True
    )
    summary = "read handwritten digits with a small convolutional network"
    command = trainings.add_parser("digits", help=summary, description=summary.capitalize() + ".")
    digits.add_arguments(command)
    command.set_defaults(run=digits.run, error=command.error)
    summary = "learn word vectors from text (skip-gram with negative sampling)"
    command = trainings.add_parser("words", help=summary, description=summary.capitalize() + ".")
    words.add_arguments(command)
    command.set_defaults(run=words.run, error=command.error)
    return parser


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        Words of the command line; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 done, 130 interrupted by Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2, after one line on stderr, if the command cannot be run as asked.
    """
    from optimcore.train import UsageError

    options = build_parser().parse_args(argv)
    try:
        options.run(options)
    except UsageError as error:
        options.error(error)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
