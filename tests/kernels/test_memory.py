"""Compiled modules where Python has no memory left."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optimcore import kernels

# For each k, in a process of its own: no memory from allocation k on. The call ends with success or MemoryError, and
# the next call, with memory, has the usual result.
CODE = """
import os, _testcapi, numpy as np, optimcore
indices = np.random.default_rng(0).integers(0, 50, 500)
values = np.ones((500, 3), np.float32)
expected = [a.tobytes() for a in {call}]
for once in (True, False):
    outcomes = []
    for k in range(60):
        if os.fork() == 0:
            code = 0
            _testcapi.set_nomemory(k, k + 1 if once else 0)
            try:
                {call}
            except MemoryError:
                code = 1
            _testcapi.remove_mem_hooks()
            os._exit(code if [a.tobytes() for a in {call}] == expected else 2)
        outcomes.append(os.waitstatus_to_exitcode(os.wait()[1]))
    print(set(outcomes) <= {{0, 1}} and outcomes[0] == 1, outcomes[-1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("call", ["optimcore.unique(indices, True, True)", "optimcore.merge_rows(indices, values)"])
def test_no_memory_is_an_error_and_nothing_else(call):
    pytest.importorskip("_testcapi", reason="CPython's tests are not installed")
    result = subprocess.run([sys.executable, "-c", CODE.format(call=call)], capture_output=True, text=True)
    assert result.stdout == "True 0\nTrue 0\n", result.stderr


def test_compiled_modules_have_no_list_comprehensions():
    # Where an append has no memory, what Cython 3.3 makes of a list comprehension releases the element twice.
    folder = Path(kernels.__file__).parent
    comprehension = re.compile(r"^[^#\n]*\[[^\[\]\n]*\bfor\b[^\n]*\bin\b", re.MULTILINE)
    found = [path.name for path in sorted(folder.glob("*.p[yx][xid]")) if comprehension.search(path.read_text())]
    assert found == []


def test_compiled_modules_enter_no_context():
    # Where there is no memory for a traceback, what Cython makes of a `with` statement of Python reads from NULL; and
    # to call __exit__ takes memory, which a `finally` does not.
    folder = Path(kernels.__file__).parent
    statement = re.compile(r"^ *(?:async )?with (?!nogil|gil)", re.MULTILINE)
    assert [path.name for path in sorted(folder.glob("*.p[yx][xid]")) if statement.search(path.read_text())] == []
