"""The snippets and examples of all Markdown files run as printed and print what they say; their links lead to files."""

import doctest
import posixpath
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import extension
import pytest
from test_doctests import run_examples

import optimcore

TOP = Path(__file__).parent.parent
PACKAGE = Path(optimcore.__file__).parent


def locate(name):
    """Return the path of a file of the repository; files of the package are those of the package that is tested."""
    folder, _, rest = name.partition("/")
    return PACKAGE / rest if folder == "optimcore" else TOP / name


def find_documents():
    """Return the text of each Markdown file by its name in the repository."""
    files = {"README.md": TOP / "README.md"}
    for folder in ("benchmarks", "optimcore", "tests"):
        for path in locate(folder).rglob("*.md"):
            if not any(part.startswith(".") for part in path.relative_to(locate(folder)).parts):  # caches of tools
                files[f"{folder}/{path.relative_to(locate(folder)).as_posix()}"] = path
    return {name: files[name].read_text(encoding="utf-8") for name in sorted(files)}


DOCUMENTS = find_documents()
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language, names=DOCUMENTS):
    """Return (name of the document, block) of all blocks in a language."""
    return [(name, code) for name in names for found, code in FENCED.findall(DOCUMENTS[name]) if found == language]


def readme_blocks(language):
    return [code for _, code in blocks(language, ["README.md"])]


SNIPPETS = blocks("python")
TORCH_SNIPPETS = blocks("py")  # torch is not needed to run the tests


def links(name):
    """Return the names of the files that a document links to."""
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", DOCUMENTS[name]))
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)", text)]
    return [
        posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        for target in targets
        if target and not re.match(r"\w+:", target)
    ]


def output_of(snippet):
    """Return the comment on the last line."""
    return snippet.rstrip().rpartition("# ")[2]


@pytest.mark.parametrize(("name", "snippet"), SNIPPETS + (TORCH_SNIPPETS if find_spec("torch") else []))
def test_snippet(name, snippet, capsys):
    """The comment on the last line is the output."""
    exec(compile(snippet, name, "exec"), {})
    assert capsys.readouterr().out.strip() == output_of(snippet)


@pytest.mark.parametrize(("name", "snippet"), blocks("cython"))
def test_cython_snippet(name, snippet, tmp_path, capsys):
    extension.build(tmp_path, "snippet", snippet)
    assert capsys.readouterr().out.strip() == output_of(snippet)


@pytest.mark.parametrize(("name", "examples"), blocks("pycon"))
def test_examples_run(name, examples):
    failures, tries, report = run_examples([doctest.DocTestParser().get_doctest(examples, {}, name, name, 0)], {})
    assert failures == 0, report
    assert tries > 0


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_code_is_left_out(name):
    """Each block is in a language that a test above runs, is a command of README, which the gate runs, or a drawing."""
    languages = {"python", "py", "cython", "pycon", "text"} | ({"sh"} if name == "README.md" else set())
    assert {language for language, _ in FENCED.findall(DOCUMENTS[name])} <= languages
    assert DOCUMENTS[name].count("\n```") == 2 * len(FENCED.findall(DOCUMENTS[name]))
    assert ">>>" not in re.sub(r"^```pycon\n.*?^```$", "", DOCUMENTS[name], flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "target"), [(name, target) for name in DOCUMENTS for target in links(name)])
def test_link_leads_to_a_file(name, target):
    assert locate(target).is_file()


def test_readme_links_to_documents_of_the_package():
    """They are found in a wheel, too: where the tests of an sdist run, the package is an installed one."""
    assert {"optimcore/CHANGELOG.md", "optimcore/MINDSPORE.md"} <= set(links("README.md")) & DOCUMENTS.keys()


@pytest.mark.skipif(not ((TOP / ".git").exists() and shutil.which("git")), reason="not a checkout")
def test_every_tracked_document_is_tested():
    command = ["git", "ls-files", "-z", "--", "*.md"]
    tracked = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout
    assert set(tracked.split("\0")) - {""} <= DOCUMENTS.keys()


def test_changelog_begins_with_this_version():
    assert re.findall(r"^## ([\w.]+)", DOCUMENTS["optimcore/CHANGELOG.md"], re.MULTILINE)[0] == optimcore.__version__


def test_lines_of_snippets_fit_on_a_screen():
    code = [code for language in ("python", "py", "cython", "pycon") for _, code in blocks(language)]
    assert max(map(len, "".join(code).splitlines())) <= 130


def test_quick_start_has_two_commands_of_one_line():
    assert [command.count("\n") for command in readme_blocks("sh")] == [1, 1]


def test_first_example_has_twenty_lines_at_most():
    assert len(readme_blocks("python")[0].splitlines()) <= 20
