import os
import re
import signal
import subprocess
import sys

import interrupts
import numpy as np
import planted
import pytest

import optimcore
from optimcore.__main__ import main
from optimcore.train import text, vectors, words

OPTIMIZERS = list(words.OPTIMIZERS)


@pytest.fixture(scope="module")
def corpus():
    return planted.planted_corpus()


def train_planted(corpus, optimizer="lazyadam", **settings):
    settings = {"dim": 16, "window": 3, "epochs": 4, "batch_size": 128, "subsample": 1.0} | settings
    return words.train(corpus, optimizer, **settings)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_planted_synonyms_end_up_nearest(corpus, optimizer):
    result = train_planted(corpus, optimizer)
    for pair in planted.SYNONYMS:
        for word, synonym in (pair, pair[::-1]):
            [(best, cosine)] = vectors.nearest(result.vectors, corpus.vocabulary.index(word), 1)
            assert corpus.vocabulary[best] == synonym
            assert cosine > 0.8
    assert not result.interrupted
    assert sum(step.words for step in result.steps) == 4 * len(corpus.words)
    assert 0 < sum(step.seconds for step in result.steps) < result.seconds


def test_bits_do_not_depend_on_the_number_of_threads(corpus, restore_runtime):
    results = []
    for threads in (1, 2, 3):
        optimcore.set_num_threads(threads)
        results.append(train_planted(corpus, epochs=1).vectors)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_bits_do_not_depend_on_the_threads_of_the_blas(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(planted.planted_text(500), encoding="utf-8")
    outputs = []
    for threads in ("1", "2"):
        output = tmp_path / f"{threads}.txt"
        command = [sys.executable, "-m", "optimcore", "train", "words", "--text", file, "--output", output]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        options = ["--dim", "200", "--epochs", "1", "--subsample", "1"]
        subprocess.run([*command, *options], env=environment, check=True, capture_output=True)
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1] != b""


def test_seed_decides(corpus):
    first, same, other = (train_planted(corpus, epochs=1, seed=seed).vectors for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.any(first != other)


def test_text_that_subsampling_leaves_nothing_of():
    corpus = text.make_corpus([["aa", "bb"]], min_count=1)
    result = train_planted(corpus, epochs=2, subsample=1e-12)
    assert np.isnan(result.loss)
    assert np.isfinite(result.vectors).all()


def run_words(tmp_path, *options):
    file = tmp_path / "text.txt"
    file.write_text(planted.planted_text(300), encoding="utf-8")
    return main(["train", "words", "--text", str(file), "--subsample", "1", *options])


def test_command_prints_the_table_and_neighbours_and_writes_files(tmp_path, capsys, restore_runtime):
    output, plot = tmp_path / "vectors.txt", tmp_path / "curves.png"
    options = ["--dim", "8", "--epochs", "2", "--threads", "2", "--neighbours", "big,Stop"]
    assert run_words(tmp_path, *options, "--output", str(output), "--plot", str(plot)) == 0
    assert optimcore.get_num_threads() == 2
    lines = capsys.readouterr().out.splitlines()
    table = dict(re.split(r"  +", line, maxsplit=1) for line in lines if line)
    assert table["optimizer"] == "lazyadam"
    assert table["words"] == "4,800 read, of a text of 2,400"
    assert table["vocabulary"] == "40 words"
    assert int(table["pairs"].replace(",", "")) > 4200
    assert float(table["loss"].split()[0]) > 0
    assert float(table["seconds"]) > 0
    assert re.fullmatch(r"[0-9,]+", table["words per second"])
    assert re.match(r"[0-9.]+% of the time", table["in the optimizer"])
    assert table["saved"] == f"40 vectors in {output}"
    assert re.match(r"[a-z]+ [0-9.]+  ", table["big"])
    assert "stop" in table
    names, table = planted.read_vectors(output)
    assert len(names) == 40
    assert table.shape == (40, 8)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_neighbours_of_frequent_words_by_default(tmp_path, capsys):
    assert run_words(tmp_path, "--dim", "8", "--epochs", "1") == 0
    assert len(capsys.readouterr().out.split("\n\n")[1].splitlines()) == 10


@pytest.mark.parametrize(
    "options, message",
    [
        (["--text", "missing.txt"], "cannot read 'missing.txt': No such file"),
        (["--text", "."], "cannot read '.': "),
        (["--text", "empty.txt"], "too few words"),
        (["--min-count", "1000"], "too few words"),
        (["--output", "no/vectors.txt"], "--output cannot write 'no/vectors.txt': No such file"),
        (["--output", "."], "--output cannot write '.': Is a directory"),
        (["--plot", "no/curves.png"], "--plot cannot write 'no/curves.png': No such file"),
        (["--neighbours", "big,huge"], "--neighbours must name words of the vocabulary, got 'huge'"),
        (["--subsample", "0"], "--subsample: must be in (0, 1], got '0'"),
        (["--subsample", "x"], "--subsample: must be in (0, 1], got 'x'"),
        (["--dim", "0"], "--dim: must be an int >= 1, got '0'"),
        (["--optimizer", "lbfgs"], "--optimizer: invalid choice: 'lbfgs'"),
    ],
)
def test_wrong_options_get_one_line_before_the_training(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(words, "train", None)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(SystemExit) as stop:
        run_words(tmp_path, *options)
    out, error = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "text.txt"]


def test_interrupt_keeps_the_vectors_so_far(tmp_path):
    file, output = tmp_path / "text.txt", tmp_path / "vectors.txt"
    file.write_text(planted.planted_text(300), encoding="utf-8")
    command = [sys.executable, "-m", "optimcore", "train", "words", "--text", file, "--output", output]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--epochs", "100000"], **pipes, preexec_fn=interrupts.heed) as training:
        # the first character of progress says that the training has begun
        training.stderr.read(1)
        training.send_signal(signal.SIGINT)
        out, error = training.communicate()
    assert training.returncode == 130
    assert error.endswith("python -m optimcore: interrupted\n")
    assert "Traceback" not in error
    assert f"40 vectors in {output}" in out
    assert len(planted.read_vectors(output)[0]) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt", "vectors.txt"]
