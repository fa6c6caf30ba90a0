import re
import signal
import subprocess
import sys

import interrupts
import pytest

import optimcore
from optimcore.__main__ import main
from optimcore.train import digits


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"optimcore {optimcore.__version__}\n"


def test_info_shows_version_and_kernels(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert optimcore.__version__ in out
    assert "baseline" in out


def test_train_prints_the_table_and_draws_the_curves(tmp_path, capsys, restore_runtime):
    plot = tmp_path / "curves.png"
    words = ["--optimizer", "momentum", "--epochs", "2", "--batch-size", "64", "--seed", "3"]
    assert main(["train", "digits", *words, "--threads", "2", "--plot", str(plot)]) == 0
    assert optimcore.get_num_threads() == 2
    table = dict(re.split(r"  +", line) for line in capsys.readouterr().out.splitlines())
    assert table["optimizer"] == "momentum"
    assert re.match(r"[0-9.]+% ", table["accuracy"])
    assert re.match(r"[0-9.]+ ", table["loss"])
    assert float(table["seconds"]) > 0
    assert re.match(r"[0-9.]+% of the time", table["in the optimizer"])
    assert re.match(r"[0-9a-f]{16} ", table["weights"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_train_in_16_bits_prints_scale_history_and_dropped_steps(capsys):
    assert main("train digits --precision float16 --epochs 1".split()) == 0
    out = capsys.readouterr().out
    assert re.search(r"^dropped steps +[1-9][0-9]* of 45,", out, re.MULTILINE)
    assert re.search(r"^loss scale from step +0: 2\^24, 1: 2\^23, ", out, re.MULTILINE)
    assert "float16" in out


def test_compare_prints_a_row_for_each_and_draws_all(tmp_path, capsys):
    plot = tmp_path / "curves.png"
    words = ["--compare", "sgd,adam", "--precision", "bfloat16", "--epochs", "2"]
    assert main(["train", "digits", *words, "--plot", str(plot)]) == 0
    head, *rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert head[:3] == ["optimizer", "accuracy", "loss"]
    assert [row[0] for row in rows[:2]] == ["sgd", "adam"]
    assert all(len(row) == len(head) for row in rows[:2])
    assert [row[0] for row in rows[2:]] == ["sgd, loss scale from step", "adam, loss scale from step"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_compare_gives_what_each_gives_alone(capsys):
    digests = []
    for choice in ("--compare sgd,momentum", "--optimizer momentum"):
        main(f"train digits --epochs 1 {choice}".split())
        digests.append(re.findall(r"\b[0-9a-f]{16}\b", capsys.readouterr().out)[-1])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "required: COMMAND"),
        ("fly", "invalid choice: 'fly'"),
        ("train", "required: TRAINING"),
        ("train digits --speed 3", "unrecognized arguments: --speed 3"),
        ("train digits --epoch 3", "unrecognized arguments: --epoch 3"),
        ("train digits --epochs 0", "argument --epochs: must be an int >= 1, got '0'"),
        ("train digits --epochs 1.5", "argument --epochs: must be an int >= 1, got '1.5'"),
        ("train digits --batch-size -1", "argument --batch-size: must be an int >= 1, got '-1'"),
        ("train digits --seed x", "argument --seed: must be an int >= 0, got 'x'"),
        ("train digits --threads 0", "argument --threads: must be an int >= 1, got '0'"),
        ("train digits --optimizer lbfgs", "argument --optimizer: invalid choice: 'lbfgs'"),
        ("train digits --compare adam,lbfgs", "argument --compare: must be names from sgd, "),
        ("train digits --compare adam,lbfgs", "got 'lbfgs'"),
        ("train digits --compare adam,", "got ''"),
        ("train digits --compare adam,sgd,adam", "must not hold a name twice, got 'adam,sgd,adam'"),
        ("train digits --compare adam --optimizer sgd", "--optimizer: not allowed with argument --compare"),
        ("train digits --precision float8", "argument --precision: invalid choice: 'float8'"),
        ("train digits --plot", "argument --plot: expected one argument"),
        ("train digits --plot curves.jpg", "--plot must name a .png file, got 'curves.jpg'"),
        ("train digits --plot no/folder.png", "--plot cannot write 'no/folder.png': No such file"),
    ],
)
def test_wrong_words_get_one_line_and_status_2(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    out, error = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert message in error
    assert error.startswith("python -m optimcore")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "module, words, extra",
    [("matplotlib.figure", "--plot curves.png", "plot"), ("ml_dtypes", "--precision bfloat16", "bf16")],
)
def test_missing_extra_is_reported_before_the_training(module, words, extra, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(digits, "train", None)
    with pytest.raises(SystemExit) as stop:
        main(["train", "digits", *words.split()])
    assert stop.value.code == 2
    assert f"pip install 'optimcore[{extra}]'" in capsys.readouterr().err


def test_interrupt_ends_with_one_line_and_status_130():
    command = [sys.executable, "-m", "optimcore", "train", "digits", "--epochs", "1000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interrupts.heed) as training:
        # the first character of progress says that the training has begun
        training.stderr.read(1)
        training.send_signal(signal.SIGINT)
        error = training.stderr.read()
    assert training.returncode == 130
    assert error.endswith("python -m optimcore: interrupted\n")
    assert "Traceback" not in error
