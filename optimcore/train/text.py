"""Text for `optimcore.train.words`: files become words, words become numbers in a vocabulary."""

import os
import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optimcore.train import UsageError

__all__ = ["Corpus", "library_files", "make_corpus", "read_corpus", "split_words"]

# single letters are mostly loop variables and format codes, very long words are mostly data
SHORTEST, LONGEST = 2, 25

# where an identifier like readLine or HTTPServer has its inner borders
_INNER_BORDER = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LETTERS = re.compile(r"[^\W\d_]+")


class Corpus(NamedTuple):
    """A text as numbers, without its rare words."""

    vocabulary: list  # of str, the most frequent first
    counts: np.ndarray  # int64 (vocabulary,), how often each occurs
    words: np.ndarray  # int32 (words,), the text as numbers of the vocabulary
    documents: np.ndarray  # int32 (words,), which text each word is from


def library_files():
    """Return the sources of the standard library of this interpreter, in a fixed order."""
    files = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        # packages of others are in a folder below the library; walk goes where `folders` says
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        files += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return files


def split_words(text):
    """Return the words of `text` in lower case: runs of letters, identifiers in their parts.

    Examples
    --------
    >>> split_words("def readLine(self): return HTTPServer.next_line + 1")
    ['def', 'read', 'line', 'self', 'return', 'http', 'server', 'next', 'line']
    """
    words = _LETTERS.findall(_INNER_BORDER.sub(" ", text).lower())
    return [word for word in words if SHORTEST <= len(word) <= LONGEST]


def read_corpus(files, min_count):
    """Read UTF-8 text files, each a document, into a `Corpus`.

    Raises
    ------
    UsageError
        If a file cannot be read or fewer than two different words are left.
    """
    return make_corpus((split_words(_read(file)) for file in files), min_count)


def make_corpus(documents, min_count):
    """Number the words of `documents`.

    Parameters
    ----------
    documents : iterable of list of str
        The words of each document.
    min_count : int, >= 1
        Words that occur less often are left out of the text.

    Returns
    -------
    Corpus

    Raises
    ------
    UsageError
        If fewer than two different words are left.
    """
    numbers = {}
    texts = [np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32) for words in documents]
    words = np.concatenate(texts) if texts else np.empty(0, np.int32)
    counts = np.bincount(words, minlength=len(numbers))
    # the sort is stable: words that occur equally often stay in order of first appearance
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts >= min_count)]
    if len(order) < 2:
        raise UsageError(
            f"the text has too few words: of {len(words)}, {len(order)} different ones occur "
            f"{min_count} times or more (--min-count)"
        )
    rank = np.full(len(counts), -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    words = rank[words]
    of_document = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) for text in texts])
    names = list(numbers)
    return Corpus([names[i] for i in order], counts[order], words[words >= 0], of_document[words >= 0])


def _read(file):
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read {str(file)!r}: {error.strerror or error}") from None
