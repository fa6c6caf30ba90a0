"""Every place that an optimizer must appear in: a failing case names the file and what it needs."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest
import reference
from cases import CASES

import optimcore
from optimcore import optim
from optimcore.kernels import embed
from optimcore.train import recipes, words

PACKAGE = Path(optimcore.__file__).parent
TESTS = Path(__file__).parent
BASES = {"Optimizer", "FirstStepOptimizer"}
NO_GOLDEN = {"AdaFactor"}  # classes that the golden data does not have
NO_WORDS = {"Rprop"}  # trusts the sign of a gradient, and those of small parts of a text have many


def find_optimizers():
    """Return the names of all classes in the modules of `optimcore.optim`, exported or not."""
    modules = [import_module(f"optimcore.optim.{module.name}") for module in iter_modules(optim.__path__)]
    names = {name for module in modules for name in module.__all__ if is_optimizer(getattr(module, name))}
    return sorted(names - BASES)


def is_optimizer(thing):
    return isinstance(thing, type) and issubclass(thing, optimcore.Optimizer)


OPTIMIZERS = find_optimizers()


def cases_of(name):
    return [case for case in CASES if name == ("LARS" if case.lars is not None else case.cls)]


def built(name):
    """Return the optimizers of a class in tests/cases.py."""
    return [case.build({"w": np.ones((2, 3), np.float32)}) for case in cases_of(name)]


def rules_of(name):
    """Return the kernels that a class uses, by which benchmarks name their workloads; LARS has none of its own."""
    return {"lars"} if name == "LARS" else {optimizer.rule for optimizer in built(name)}


# ---- places: each returns what is missing, or nothing


def exports(name):
    return [name for module in (optim, optimcore) if name not in module.__all__]


def equations(name):
    text = (PACKAGE / "optim" / "README.md").read_text(encoding="utf-8")
    return [] if re.search(rf"^\| `{name}` \|", text, re.MULTILINE) else [name]


def embed_table(name):
    text = (PACKAGE / "kernels" / "embed.pxd").read_text(encoding="utf-8")
    listed = set(re.findall(r"^#   ([a-z_]+)  ", text, re.MULTILINE)) | set(embed.NOT_FOR_ROWS) | {"lars"}
    return rules_of(name) - listed


def oracle(name):
    return [] if hasattr(reference, "Lars" if name == "LARS" else name) else [name]


def cases(name):
    return [] if cases_of(name) else [name]


def golden(name):
    return [] if name in NO_GOLDEN or (TESTS / "golden" / f"{name}.npz").is_file() else [name]


def workload(name):
    from workloads.dense import RULES

    return rules_of(name) - set(RULES)


def peer(name):
    from peers.dense import NUMPY

    return rules_of(name) - set(NUMPY)


def digits(name):
    return [] if name.lower() in recipes.OPTIMIZERS else [name.lower()]


def words_recipe(name):
    takes_rows = name != "LARS" and any(optimizer._plan.takes_rows for optimizer in built(name))
    return [name.lower()] if takes_rows and name not in NO_WORDS and name.lower() not in words.OPTIMIZERS else []


PLACES = {
    "optimcore/optim/__init__.py and optimcore/__init__.py: an export": exports,
    "optimcore/optim/README.md: a row in the table of equations": equations,
    "optimcore/kernels/embed.pxd: a line in the table of rules, or NOT_FOR_ROWS in embed.pyx": embed_table,
    "tests/reference.py: the oracle": oracle,
    "tests/cases.py: a row, over which all laws run": cases,
    "tests/golden/: MindSpore's numbers, or NO_GOLDEN in tests/test_places.py if it has none": golden,
    "benchmarks/workloads/dense.py: a workload in RULES": workload,
    "benchmarks/peers/dense.py: the NumPy expression in NUMPY": peer,
    "optimcore/train/recipes.py: a recipe in OPTIMIZERS": digits,
    "optimcore/train/words.py: a recipe in OPTIMIZERS, or NO_WORDS in tests/test_places.py": words_recipe,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_is_in_its_place(name, place):
    missing = sorted(PLACES[place](name))
    assert not missing, f"{name} needs {place}; missing: {', '.join(missing)}"


def test_optimizers_are_found():
    assert {"SGD", "Adam", "AdamOffload", "LARS", "AdaFactor"} <= set(OPTIMIZERS)
    assert not BASES & set(OPTIMIZERS)
