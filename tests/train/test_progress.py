import io
import sys

import pytest

from optimcore.train import UsageError
from optimcore.train.progress import Epoch, Progress, check_plot, format_table, plot_curves

CURVE = [Epoch(2.3, 2.2, 0.1, 0.01), Epoch(0.5, 0.6, 0.9, 0.005)]


def show_two_epochs():
    with Progress(epochs=2, steps=3) as progress:
        for _ in range(2):
            for _ in range(3):
                progress.step()
            progress.end_epoch("loss 0.5")


def test_one_line_an_epoch_without_tqdm(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    show_two_epochs()
    assert capsys.readouterr().err == "epoch 1/2  loss 0.5\nepoch 2/2  loss 0.5\n"


def test_a_bar_with_tqdm(capsys):
    show_two_epochs()
    error = capsys.readouterr().err
    assert "6/6" in error
    assert "loss 0.5" in error


def test_label_comes_first(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with Progress(epochs=1, steps=1, label="adam") as progress:
        progress.end_epoch("loss 0.5")
    assert capsys.readouterr().err == "adam  epoch 1/1  loss 0.5\n"


def test_table_has_as_many_columns_as_rows_have_entries():
    assert format_table([("name", "loss", "x"), ("a", 0.5, "y")]) == "name  loss  x\na     0.5   y"


def test_table_is_aligned():
    assert format_table([("loss", 0.5), ("seconds", "3.20")]) == "loss     0.5\nseconds  3.20"


def test_plot_is_a_png_of_every_curve(tmp_path):
    path = tmp_path / "curves.PNG"
    plot_curves(str(path), {"adam": CURVE, "sgd": CURVE[:1]})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_check_plot_leaves_the_folder_as_it_was(tmp_path):
    old = tmp_path / "old.png"
    old.write_bytes(b"precious")
    check_plot(str(old))
    check_plot(str(tmp_path / "new.png"))
    assert old.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize(
    "name, message",
    [
        ("curves.pdf", "must name a .png file, got '.*curves.pdf'"),
        ("missing/curves.png", "cannot write '.*curves.png': No such file or directory"),
        ("folder.png", "cannot write '.*folder.png': Is a directory"),
    ],
)
def test_check_plot_refuses(tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=message):
        check_plot(str(tmp_path / name))


def test_check_plot_names_the_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'optimcore\[plot\]'"):
        check_plot(str(tmp_path / "curves.png"))


def test_plot_that_can_no_longer_be_written(tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        plot_curves(str(tmp_path / "gone" / "curves.png"), {"adam": CURVE})


def test_a_log_file_gets_few_refreshes_of_the_bar(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with Progress(epochs=1, steps=1000) as progress:
        for _ in range(1000):
            progress.step()
    assert log.getvalue().count("\r") <= 5


def test_a_bar_of_small_steps_shows_their_number_and_the_state(capsys):
    with Progress(epochs=1, steps=3_000_000, unit="word") as progress:
        progress.step(1_500_000, "loss 2.5")
        progress.step(1_500_000)
    error = capsys.readouterr().err
    assert "3.00M/3.00M" in error
    assert "word/s, loss 2.5" in error
