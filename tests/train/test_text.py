import os
from pathlib import Path

import pytest

from optimcore.train import UsageError, text


def test_words_are_the_parts_of_identifiers_in_lower_case():
    assert text.split_words("HTTPServer.do_GET(x, readLine2) # Ärger, naïve") == [
        "http",
        "server",
        "do",
        "get",
        "read",
        "line",
        "ärger",
        "naïve",
    ]


def test_very_short_and_very_long_words_are_no_words():
    assert text.split_words(f"a ab {'x' * 25} {'x' * 26}") == ["ab", "x" * 25]


def test_corpus_numbers_the_most_frequent_word_first_and_drops_rare_ones():
    corpus = text.make_corpus([["no", "yes", "yes"], ["rare", "maybe", "yes", "no", "maybe"]], min_count=2)
    assert corpus.vocabulary == ["yes", "no", "maybe"]
    assert corpus.counts.tolist() == [3, 2, 2]
    assert corpus.words.tolist() == [1, 0, 0, 2, 0, 1, 2]
    assert corpus.documents.tolist() == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("documents", [[], [[]], [["one"] * 9], [["one", "two"], ["one", "three"]]])
def test_too_few_words(documents):
    with pytest.raises(UsageError, match="too few words"):
        text.make_corpus(documents, min_count=2)


def test_library_files_are_the_same_each_time_and_without_other_packages():
    files = text.library_files()
    assert files == text.library_files()
    assert Path(os.__file__) in files
    assert not any("site-packages" in file.parts for file in files)
