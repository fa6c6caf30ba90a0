"""What the tests of `optimcore.train.words` share: a small text with planted synonyms, a reader of vectors."""

import numpy as np

from optimcore.train import text

SYNONYMS = [("big", "large"), ("fast", "quick"), ("begin", "start"), ("end", "stop")]


def planted_text(sentences=2000):
    """Return sentences, a paragraph each, in which the words of a pair of `SYNONYMS` have the same neighbours."""
    rng = np.random.default_rng(4)
    lines = []
    for topic in rng.integers(0, len(SYNONYMS), sentences):
        # the other words differ in their neighbours: each has a place of its own
        line = [f"{place}{'abcd'[topic]}" for place in ("one", "two", "three", "four", "five", "six")]
        line.insert(3, SYNONYMS[topic][rng.integers(0, 2)])
        line.insert(rng.integers(0, 8), f"noise{'abcdefgh'[rng.integers(0, 8)]}")
        lines.append(" ".join(line))
    return "\n\n".join(lines)


def planted_corpus():
    """Return the sentences as documents."""
    return text.make_corpus([line.split() for line in planted_text().split("\n\n")], min_count=1)


def read_vectors(path):
    """Read word2vec's text format as its readers do."""
    with open(path, encoding="utf-8") as file:
        count, dim = map(int, file.readline().split())
        rows = [line.rstrip().split(" ") for line in file]
    assert len(rows) == count
    assert all(len(row) == dim + 1 for row in rows)
    return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
