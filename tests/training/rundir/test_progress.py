"""A progress bar that is quiet where it is not wanted."""

from spa_jax.training.progress import ProgressBar


def shown_by_a_bar(capfd, enabled):
    with ProgressBar(start=0, total_steps=8, enabled=enabled) as bar:
        bar.show(4, {"loss": 0.512, "acc": None, "img/s": 1234.5})
        bar.show(8, {"loss": 0.25, "acc": 0.75, "img/s": 2000.0})
    captured = capfd.readouterr()
    return captured.out + captured.err


def test_a_disabled_progress_bar_writes_nothing(capfd):
    assert shown_by_a_bar(capfd, enabled=False) == ""


def test_an_enabled_progress_bar_shows_the_newest_numbers(capfd):
    shown = " ".join(shown_by_a_bar(capfd, enabled=True).split())
    assert "8/8" in shown
    assert "loss 0.250 acc 0.750 img/s 2,000" in shown


def test_the_progress_bar_keeps_out_of_standard_output(capfd):
    """It is enabled where standard error is a terminal; standard output may be a file."""
    with ProgressBar(start=0, total_steps=8, enabled=True) as bar:
        bar.show(8, {"loss": 0.25})
    assert capfd.readouterr().out == ""
