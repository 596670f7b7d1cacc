"""Lines of JSON that survive a crash and are cut back to a checkpoint."""

import json

import pytest

from spa_jax.training.rundir.json_lines import JsonLines
from tests.refusals import refusal

LINES = [{"step": 10 * i, "epoch": i, "loss": 1 / i, "mean_cosine": None} for i in range(1, 5)]
HALF_LINE = '{"step": 50, "epoch": 5, "lo'


@pytest.fixture
def lines(tmp_path):
    """A file of four lines."""
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for line in LINES:
        lines.append(line)
    return lines


def half_write(lines, text):
    with lines.path.open("a") as file:
        file.write(text)


def test_what_was_appended_is_read_back_one_line_each(lines):
    assert lines.read() == LINES
    assert [json.loads(line) for line in lines.path.read_text().splitlines()] == LINES


def test_another_object_goes_on_where_the_first_stopped(lines):
    JsonLines(lines.path).append({"step": 50})
    assert lines.read() == [*LINES, {"step": 50}]


def test_a_step_that_is_no_number_is_refused(lines):
    half_write(lines, '{"step": "x"}\n')
    message = refusal(lines.check_epochs, 40, 10, lines.path.parent)
    assert f"{lines.path} cannot be read (a line has the step 'x')" in message


def test_a_file_that_does_not_exist_has_no_lines_and_cutting_it_back_makes_none(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    assert lines.read() == []
    assert lines.cut_back(3) == []
    assert not list(tmp_path.iterdir())


def test_a_half_written_last_line_is_left_out(lines):
    for letter in HALF_LINE:
        half_write(lines, letter)
        assert lines.read() == LINES


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00\n", b"[50]\n", b"50\n"])
def test_what_is_no_line_ends_the_file_there(lines, damage):
    with lines.path.open("ab") as file:
        file.write(damage)
    lines.append({"step": 60})
    assert lines.read() == LINES
    assert lines.cut_back(60) == LINES


def test_lines_without_a_step_are_missed(lines):
    lines.append({"loss": 1.0})
    assert "does not hold the epochs" in refusal(lines.check_epochs, 40, 10, lines.path.parent)


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (9, 0), (10, 1), (25, 2), (40, 4), (99, 4)])
@pytest.mark.parametrize("ending", ["", HALF_LINE], ids=["whole", "half a line"])
def test_cutting_back_drops_the_lines_after_a_step_and_half_lines(lines, step, kept, ending):
    half_write(lines, ending)
    assert lines.cut_back(step) == LINES[:kept]
    assert [json.loads(line) for line in lines.path.read_text().splitlines()] == LINES[:kept]


@pytest.mark.parametrize("ending", ["", HALF_LINE, json.dumps({"step": 50})])
def test_after_cutting_back_new_lines_stand_on_their_own(lines, ending):
    half_write(lines, ending)
    kept = lines.cut_back(60)
    lines.append({"step": 70})
    assert lines.read() == [*kept, {"step": 70}]
    assert kept[:4] == LINES


def test_cutting_back_twice_gives_the_same_file(lines):
    lines.cut_back(20)
    before = lines.path.read_bytes()
    lines.cut_back(20)
    assert lines.path.read_bytes() == before


def test_cutting_back_replaces_the_file_at_once(lines):
    """A reader that has the file open sees the old lines to their end, a new one the new lines."""
    before, inode = lines.path.read_text(), lines.path.stat().st_ino
    with lines.path.open() as reader:
        lines.cut_back(20)
        assert reader.read() == before
    assert lines.path.stat().st_ino != inode
    assert [path.name for path in lines.path.parent.iterdir()] == [lines.path.name]


def test_the_lines_up_to_a_checkpoint_must_all_be_there(lines):
    lines.check_epochs(30, 10, lines.path.parent)
    for start, steps in ((50, 10), (40, 20)):
        message = refusal(lines.check_epochs, start, steps, lines.path.parent)
        assert f"metrics.jsonl does not hold the epochs up to step {start}" in message
        assert "remove both to start over" in message
    # Of epochs that were not evaluated the last is needed alone.
    lines.append({"step": 50})
    lines.check_epochs(50, 10, lines.path.parent, evaluate_every=2)
    lines.append({"step": 80})
    lines.append({"step": 90})
    assert "up to step 90" in refusal(lines.check_epochs, 90, 10, lines.path.parent, 2)


def test_a_host_that_does_not_write_reads_alone(lines):
    other = JsonLines(lines.path, writes=False)
    other.append({"step": 50})
    assert other.cut_back(20) == LINES[:2]
    assert lines.read() == LINES
