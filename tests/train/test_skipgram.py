import numpy as np
import planted
import pytest

from optimcore.train import skipgram, text


@pytest.fixture(scope="module")
def corpus():
    return planted.planted_corpus()


def make_sampler(corpus, seed=0, dim=16, window=3, negative=5, batch_size=128, subsample=1.0):
    return skipgram.Sampler(np.random.default_rng(seed), corpus, dim, window, negative, batch_size, subsample)


def test_pairs_are_the_words_in_each_others_window_of_one_document():
    rng = np.random.default_rng(5)
    documents = [[f"{'abcdefgh'[i]}x" for i in rng.integers(0, 8, n)] for n in (1, 2, 3, 40, 50)]
    corpus = text.make_corpus(documents, min_count=1)
    sampler = make_sampler(corpus, window=1)
    found = np.zeros((8, 8), int)
    for batch in sampler.epoch():
        blocks, centres, contexts = np.nonzero(batch.weights[:, :, : batch.contexts])
        np.add.at(found, (batch.centres[blocks, centres], batch.targets[blocks, contexts]), 1)
    number = {word: i for i, word in enumerate(corpus.vocabulary)}
    expected = np.zeros((8, 8), int)
    for document in documents:
        for left, right in zip(document, document[1:], strict=False):
            expected[number[left], number[right]] += 1
            expected[number[right], number[left]] += 1
    np.testing.assert_array_equal(found, expected)


def test_noise_of_a_centre_weighs_negative_times_its_pairs(corpus):
    batch = next(make_sampler(corpus, negative=7).epoch())
    pairs, noise = np.split(batch.weights, [batch.contexts], axis=2)
    np.testing.assert_allclose(noise.sum(axis=2), 7 * pairs.sum(axis=2), rtol=1e-6)
    assert pairs.sum() == batch.pairs > 0


def test_noise_follows_the_counts_to_the_power_of_three_quarters():
    corpus = text.make_corpus([["aa"] * 8000 + ["bb"] * 1500 + ["cc"] * 500], min_count=1)
    noise = np.concatenate([batch.targets[:, batch.contexts :].ravel() for batch in make_sampler(corpus).epoch()])
    expected = corpus.counts**0.75 / np.sum(corpus.counts**0.75)
    np.testing.assert_allclose(np.bincount(noise) / len(noise), expected, atol=0.01)


def test_subsampling_keeps_the_square_root_of_what_is_frequent():
    corpus = text.make_corpus([["aa"] * 90_000 + ["bb"] * 9_000 + ["cc"] * 1_000], min_count=1)
    sampler = make_sampler(corpus, subsample=0.01)
    # the last block ends in padding with word 0, so its centres count for nothing
    counts = sum(np.bincount(batch.centres.ravel(), minlength=3) for batch in sampler.epoch())
    expected = corpus.counts * np.minimum(1, np.sqrt(0.01 / np.array([0.9, 0.09, 0.01])))
    np.testing.assert_allclose(counts, expected, rtol=0.05)


def test_an_epoch_counts_every_word_of_the_text_once(corpus):
    batches = list(make_sampler(corpus, subsample=0.01).epoch())
    assert sum(batch.words for batch in batches) == len(corpus.words)
    assert len(batches) == pytest.approx(make_sampler(corpus, subsample=0.01).steps(), abs=2)


@pytest.mark.parametrize("dim, window", [(1, 1), (64, 5), (300, 5), (1000, 20)])
def test_products_are_too_small_for_the_threads_of_a_blas(corpus, dim, window):
    batch = next(make_sampler(corpus, dim=dim, window=window).epoch())
    _, block, targets = batch.weights.shape
    assert block >= 2
    assert block * targets * dim <= skipgram.LARGEST_PRODUCT


def test_gradients_agree_with_finite_differences(corpus):
    rng = np.random.default_rng(6)
    model = skipgram.SkipGram(rng, len(corpus.vocabulary), 5, np.float64)
    model.outputs[...] = rng.standard_normal(model.outputs.shape)
    batch = next(make_sampler(corpus).epoch())
    _, gradients = model.differentiate(batch)
    step = 1e-6
    for table, gradient in zip((model.inputs, model.outputs), gradients, strict=True):
        dense = np.zeros(gradient.dense_shape)
        np.add.at(dense, gradient.indices, gradient.values)
        direction = rng.standard_normal(table.shape)
        old = table.copy()
        table[...] = old + step * direction
        above, _ = model.differentiate(batch)
        table[...] = old - step * direction
        below, _ = model.differentiate(batch)
        table[...] = old
        assert np.sum(dense * direction) == pytest.approx((above - below) / (2 * step), rel=1e-6)


def test_loss_is_that_of_negative_sampling_and_large_scores_stay_finite():
    model = skipgram.SkipGram(np.random.default_rng(0), 2, 1, np.float64)
    batch = skipgram.Batch(np.array([[0]]), np.array([[0, 1]]), np.array([[[1.0, 2.0]]]), contexts=1, pairs=1, words=1)
    model.inputs[:], model.outputs[:] = 1.0, [[0.5], [-0.25]]
    loss, _ = model.differentiate(batch)
    assert loss == pytest.approx(np.log1p(np.exp(-0.5)) + 2 * np.log1p(np.exp(-0.25)))
    model.outputs[:] = [[-1e6], [1e6]]
    loss, gradients = model.differentiate(batch)
    assert loss == pytest.approx(3 * skipgram.LARGEST_SCORE)
    assert np.isfinite(gradients[0].values).all()
