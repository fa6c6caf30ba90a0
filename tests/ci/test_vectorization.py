"""The check of loops, on C files and reports that are made up."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / ".ci" / "vectorization.py"
C_FILE = """
for (i = start; i < stop; i++) {
  __pyx_f_storage_load(&a, i, &w, &g);
}
"""


@pytest.fixture(scope="module")
def vectorization():
    """Return the program as a module."""
    if not PATH.exists():
        pytest.skip("an sdist has no .ci")
    spec = importlib.util.spec_from_file_location("vectorization", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_build(folder, isa, width):
    """Write the C file of a build with one loop, and the report that it was vectorized with so many bytes."""
    name = f"_isa_{isa}"
    (folder / f"{name}.c").write_text(C_FILE)
    (folder / f"{name}.txt").write_text(f"{name}.c:2:3: optimized: loop vectorized using {width} byte vectors\n")


def test_every_build_in_the_folder_is_looked_at(vectorization, tmp_path, capsys):
    # whether this CPU can run it or not
    for isa, width in vectorization.VECTOR_BYTES.items():
        write_build(tmp_path, isa, width)
    assert vectorization.main(tmp_path) == 0
    assert capsys.readouterr().out.count("1 of 1 loops vectorized") == 3
    for isa, width in vectorization.VECTOR_BYTES.items():
        write_build(tmp_path, isa, width // 2)
        assert vectorization.main(tmp_path) == 1
        assert f"not vectorized: _isa_{isa}.c:2" in capsys.readouterr().out
        write_build(tmp_path, isa, width)


def test_build_without_a_report_fails(vectorization, tmp_path, capsys):
    write_build(tmp_path, "baseline", 16)
    write_build(tmp_path, "avx512", 64)
    (tmp_path / "_isa_avx512.txt").unlink()
    assert vectorization.main(tmp_path) == 1
    assert "avx512: no report of the compiler" in capsys.readouterr().out


def test_folder_without_builds_is_an_error(vectorization, tmp_path):
    with pytest.raises(SystemExit, match="FOLDER must hold the C files of a build"):
        vectorization.main(tmp_path)


def test_short_loop_counts_as_vectorized_with_the_one_around_it(vectorization, tmp_path):
    short = "while (1) {\n  if (done) break;\n" + C_FILE.strip() + "\n}\n"
    for line, missing in ((2, 0), (9, 1)):
        (tmp_path / "_isa_avx2.c").write_text(short)
        report = f"_isa_avx2.c:{line}:3: optimized: loop vectorized using 32 byte vectors\n"
        (tmp_path / "_isa_avx2.txt").write_text(report)
        assert vectorization.main(tmp_path) == missing
