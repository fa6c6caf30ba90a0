"""The snippets of README run as printed and print what they say."""

import re
from importlib.util import find_spec
from pathlib import Path

import extension
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


SNIPPETS = blocks("python")
TORCH_SNIPPETS = blocks("py")  # torch is not needed to run the tests


def output_of(snippet):
    """Return the comment on the last line."""
    return snippet.rstrip().rpartition("# ")[2]


@pytest.mark.parametrize("snippet", SNIPPETS + (TORCH_SNIPPETS if find_spec("torch") else []))
def test_snippet(snippet, capsys):
    """The comment on the last line is the output."""
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == output_of(snippet)


def test_cython_snippet(tmp_path, capsys):
    (snippet,) = blocks("cython")
    extension.build(tmp_path, "snippet", snippet)
    assert capsys.readouterr().out.strip() == output_of(snippet)


def test_lines_of_snippets_fit_on_a_screen():
    assert max(map(len, "".join(SNIPPETS + TORCH_SNIPPETS + blocks("cython")).splitlines())) <= 130


def test_quick_start_has_two_commands_of_one_line():
    assert [command.count("\n") for command in blocks("sh")] == [1, 1]


def test_first_example_has_twenty_lines_at_most():
    assert len(SNIPPETS[0].splitlines()) <= 20
