import numpy as np
import planted
import pytest

from optimcore.train import vectors


def test_file_gives_the_same_vectors_back(tmp_path):
    table = np.random.default_rng(7).standard_normal((3, 5)).astype(np.float32)
    table[0, :3] = 1e-38, -0.0, 16777217
    path = tmp_path / "vectors.txt"
    path.write_text("old")
    vectors.write_vectors(str(path), ["one", "two", "ärger"], table)
    names, read = planted.read_vectors(path)
    assert names == ["one", "two", "ärger"]
    np.testing.assert_array_equal(read.view(np.int32), table.view(np.int32))
    assert list(tmp_path.iterdir()) == [path]


def test_failed_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="longer"):
        vectors.write_vectors(str(path), ["one"], np.ones((2, 2), np.float32))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nearest_is_sorted_by_cosine():
    table = np.array([[1, 0], [3, 4], [5, 0], [-1, 0], [0, 0]], np.float32)
    found = vectors.nearest(table, 0, 3)
    assert [i for i, _ in found] == [2, 1, 4]
    assert [cosine for _, cosine in found] == pytest.approx([1, 0.6, 0])
    assert len(vectors.nearest(table, 0, 99)) == 4
