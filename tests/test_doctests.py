"""Run the examples of all docstrings."""

import doctest
import importlib
import pkgutil

import pytest

import optimcore


def module_names():
    """Return the names of all modules that may be imported: __main__ runs, an ISA build may not fit the CPU."""
    names = [module.name for module in pkgutil.walk_packages(optimcore.__path__, "optimcore.")]
    return ["optimcore", *(n for n in names if not n.rpartition(".")[2].startswith(("__main__", "_isa_")))]


def run_examples(examples, namespace):
    """Run doctests and return (failures, examples run, report)."""
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in examples:
        test.globs.update(namespace)
        runner.run(test, out=report.append)
    return runner.failures, runner.tries, "".join(report)


@pytest.mark.parametrize("name", module_names())
def test_examples_run(name, doctest_namespace):
    """Every example prints what it says."""
    module = importlib.import_module(name)
    examples = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    failures, _, report = run_examples(examples, doctest_namespace)
    assert failures == 0, report


def test_example_of_the_seed_page_runs(doctest_namespace):
    """The example in `get_lr_parameter` is found, so that a green run means something."""
    method = optimcore.Optimizer.get_lr_parameter
    examples = doctest.DocTestFinder().find(method, "get_lr_parameter", globs={})
    failures, tries, report = run_examples(examples, doctest_namespace)
    assert failures == 0, report
    assert tries == 8


def test_example_of_a_user_defined_optimizer_runs(doctest_namespace):
    """The optimizer in the docstring of `Optimizer` has fewer than 30 lines and runs."""
    (example,) = doctest.DocTestFinder(recurse=False).find(optimcore.Optimizer, "Optimizer", globs={})
    (definition,) = [e.source for e in example.examples if e.source.startswith("class ")]
    assert len(definition.splitlines()) < 30
    failures, _, report = run_examples([example], doctest_namespace)
    assert failures == 0, report
