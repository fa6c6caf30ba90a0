"""Skip-gram with negative sampling, in blocks of text and with row gradients.

A block is a run of words of the text. Its words as centres, times its words and their neighbours as contexts, is one
small matrix product, of which a band, as wide as the window, is used. Noise words are drawn once for a block; each
stands for a share of those that the centres of the block would have drawn for themselves. So the expected gradient
is that of the paper, the variance is lower, and a word of the text costs one row of either table instead of
one for each of its pairs.

References
----------
T. Mikolov, I. Sutskever, K. Chen, G. Corrado and J. Dean, "Distributed representations of words and phrases and their
compositionality", 2013: equation 4 (negative sampling), equation 5 (subsampling).
"""

from typing import NamedTuple

import numpy as np

import optimcore

__all__ = ["Batch", "Sampler", "SkipGram"]

NOISE_WORDS = 64  # drawn for a block
NOISE_POWER = 0.75  # section 2.2 of the paper
LARGEST_BLOCK = 32
# a BLAS may share larger products among its threads, and their number could then change the last bits of the result
LARGEST_PRODUCT = 2**18
LARGEST_SCORE = 30.0


class Batch(NamedTuple):
    """Some blocks of text and what their scores count.

    The targets of a block are its contexts, then its noise words. Pairs have the label 1, noise has the label 0.
    """

    centres: np.ndarray  # int32 (blocks, block), word numbers
    targets: np.ndarray  # int32 (blocks, contexts + noise), word numbers
    weights: np.ndarray  # float32 (blocks, block, contexts + noise), how much each score counts
    contexts: int  # how many of the targets of a block are contexts
    pairs: int  # of a word and a neighbour
    words: int  # of the text that the batch stands for, those left out included


class Sampler:
    """Cut a text into random batches.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws everything.
    corpus : Corpus
        The text.
    dim : int
        Elements of a word vector; the more, the smaller the blocks.
    window : int, >= 1
        Largest distance of the words of a pair. Each centre draws its own in ``[1, window]``.
    negative : int, >= 1
        Noise words for each pair.
    batch_size : int, >= 1
        Centres in a batch, rounded down to whole blocks.
    subsample : float, > 0
        Words that make up more than this fraction of the text are left out at random, with probability
        ``1 - sqrt(subsample / fraction)``.
    """

    def __init__(self, rng, corpus, dim, window, negative, batch_size, subsample):
        self.rng, self.corpus, self.window, self.negative = rng, corpus, window, negative
        self.block = min(_block_size(dim, window), batch_size)
        self.blocks = batch_size // self.block
        fractions = corpus.counts / corpus.counts.sum()
        self.kept = np.minimum(1.0, np.sqrt(subsample / fractions))
        noise = fractions**NOISE_POWER
        self.noise = np.cumsum(noise / noise.sum())
        # distance of each context of a block from each centre
        positions = np.arange(self.block)
        self.distances = np.abs(np.arange(-window, self.block + window) - positions[:, None])

    def steps(self):
        """Return the expected number of batches of an epoch."""
        centres = float(self.kept @ self.corpus.counts)
        return int(np.ceil(centres / (self.block * self.blocks)))

    def epoch(self):
        """Yield a `Batch` after the other, all of the text once.

        Frequent words are left out first, so that windows reach further where there were some.
        """
        kept = self.rng.random(len(self.corpus.words)) < self.kept[self.corpus.words]
        words = self._blocks(self.corpus.words[kept], 0)
        documents = self._blocks(self.corpus.documents[kept], -1)
        order = self.rng.permutation(len(words))
        for start in range(0, len(order), self.blocks):
            chosen = order[start : start + self.blocks]
            done, doing = (len(kept) * n // len(order) for n in (start, start + len(chosen)))
            yield self._batch(words[chosen], documents[chosen], doing - done)

    def _blocks(self, text, filler):
        """Return overlapping parts of `text`: the words of each block with `window` more on both sides."""
        blocks = max(1, -(-len(text) // self.block))
        missing = blocks * self.block - len(text)
        padded = np.pad(text, (self.window, self.window + missing), constant_values=filler)
        return np.lib.stride_tricks.sliding_window_view(padded, self.distances.shape[1])[:: self.block]

    def _batch(self, words, documents, text_words):
        inner = slice(self.window, self.window + self.block)
        blocks, contexts = words.shape
        reach = self.rng.integers(1, self.window + 1, (blocks, self.block), dtype=np.int32)
        reach[documents[:, inner] < 0] = 0  # behind the end of the text
        pairs = (self.distances > 0) & (self.distances <= reach[:, :, None])
        pairs &= documents[:, inner, None] == documents[:, None, :]
        pairs_of_centre = np.count_nonzero(pairs, axis=2)
        weights = np.empty((blocks, self.block, contexts + NOISE_WORDS), np.float32)
        weights[:, :, :contexts] = pairs
        weights[:, :, contexts:] = pairs_of_centre[:, :, None] * (self.negative / NOISE_WORDS)
        noise = np.searchsorted(self.noise, self.rng.random((blocks, NOISE_WORDS)), side="right")
        # rounding may leave the last sum below 1
        noise = np.minimum(noise, len(self.noise) - 1).astype(np.int32)
        targets = np.concatenate([words, noise], axis=1)
        return Batch(words[:, inner], targets, weights, contexts, int(pairs_of_centre.sum()), text_words)


class SkipGram:
    """Two vectors for every word: as a centre and as a target.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the initial vectors of centres; those of targets are 0, as in the authors' program.
    words : int
        Size of the vocabulary.
    dim : int
        Elements of a vector.
    dtype : dtype, default float32
        Float dtype of the vectors.

    Attributes
    ----------
    inputs, outputs : ndarray, shape (words, dim)
        The vectors of centres, which are the result, and of targets.
    """

    def __init__(self, rng, words, dim, dtype=np.float32):
        self.inputs = ((rng.random((words, dim)) - 0.5) / dim).astype(dtype)
        self.outputs = np.zeros((words, dim), dtype)

    def differentiate(self, batch):
        """Return the summed loss of a batch and its gradients for both tables, as row tensors."""
        centres, targets = self.inputs[batch.centres], self.outputs[batch.targets]
        scores = centres @ targets.transpose(0, 2, 1)
        # further out the slope is 0 or 1 anyway, and exp would overflow
        np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE, out=scores)
        probabilities = 1 / (1 + np.exp(-scores))
        losses = -np.log(probabilities)
        losses[:, :, batch.contexts :] += scores[:, :, batch.contexts :]  # -log(1 - p) = -log(p) + score
        loss = float(np.sum(batch.weights * losses, dtype=np.float64))
        slopes = probabilities
        slopes[:, :, : batch.contexts] -= 1
        slopes *= batch.weights
        input_rows = self._rows(batch.centres, slopes @ targets)
        output_rows = self._rows(batch.targets, slopes.transpose(0, 2, 1) @ centres)
        return loss, (input_rows, output_rows)

    def _rows(self, words, vectors):
        return optimcore.RowTensor(words.ravel(), vectors.reshape(-1, vectors.shape[-1]), self.inputs.shape)


def _block_size(dim, window):
    block = LARGEST_BLOCK
    while block > 2 and block * (block + 2 * window + NOISE_WORDS) * dim > LARGEST_PRODUCT:
        block //= 2
    return block
