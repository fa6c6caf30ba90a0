"""Word vectors: their file in word2vec's text format, and who is near whom."""

import os

import numpy as np

from optimcore.train import UsageError

__all__ = ["check_output", "nearest", "write_vectors"]


def check_output(path):
    """Check, before a training, that `write_vectors` will be able to write `path`.

    Raises
    ------
    UsageError
        If `path` is a folder, or no file can be made beside it.
    """
    temporary = _beside(path)
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(None, "Is a directory")
        with open(temporary, "w"):
            pass
        os.remove(temporary)
    except OSError as error:
        raise _unwritable(path, error) from None


def write_vectors(path, vocabulary, vectors):
    """Write vectors in word2vec's text format: number of words and elements, then a line for each word.

    The file appears under its name when it is complete: an older one is replaced at once or stays.

    Parameters
    ----------
    path : str
    vocabulary : list of str
        Words without blanks.
    vectors : ndarray of float32, shape (words, elements)

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    temporary = _beside(path)
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(f"{len(vectors)} {vectors.shape[1]}\n")
            for word, vector in zip(vocabulary, vectors.tolist(), strict=True):
                # nine digits tell any two float32 numbers apart
                file.write(f"{word} {' '.join([f'{x:.9g}' for x in vector])}\n")
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        # it is still there only if something went wrong, Ctrl-C included
        if os.path.exists(temporary):
            os.remove(temporary)


def nearest(vectors, number, count):
    """Return the `count` rows of `vectors` that are nearest to row `number`, itself left out.

    Returns
    -------
    list of (int, float)
        Row number and cosine, the largest cosine first.
    """
    # einsum does not use the BLAS: the same bits for any number of its threads
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    cosines = np.einsum("ij,j->i", vectors, vectors[number])
    cosines /= np.maximum(lengths * lengths[number], np.finfo(vectors.dtype).tiny)
    cosines[number] = -np.inf
    best = np.argsort(-cosines, kind="stable")[: min(count, len(vectors) - 1)]
    return [(int(i), float(cosines[i])) for i in best]


def _beside(path):
    """Return the name of a temporary file on the same file system, where renaming is atomic."""
    return f"{path}.{os.getpid()}.tmp"


def _unwritable(path, error):
    return UsageError(f"--output cannot write {str(path)!r}: {error.strerror or error}")
