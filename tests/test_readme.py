"""The snippets of README run as printed and print what they say."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet(snippet, capsys):
    """The comment on the last line is the output."""
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == snippet.rstrip().rpartition("# ")[2]


def test_quick_start_has_two_commands_of_one_line():
    commands = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert [command.count("\n") for command in commands] == [1, 1]


def test_first_example_has_twenty_lines_at_most():
    assert len(SNIPPETS[0].splitlines()) <= 20
