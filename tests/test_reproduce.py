"""What the command of the reproduction refuses before it trains anything."""

import pytest
from absl import flags

from spa_jax import reproduce
from spa_jax.command_line import parse_flags
from spa_jax.reproduction.driver import Driver


def command(*arguments):
    known = {*flags.FLAGS}
    try:
        reproduce.define_flags()
        reproduce.main(parse_flags(["reproduce", *arguments], positional=True))
    finally:
        flags.FLAGS.remove_flag_values({*flags.FLAGS} - known)


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--records=", "--records is empty"),
        ("--records=.", "--records=. is a folder, and a file is needed"),
        ("--records=gs://bucket/r.jsonl", "is not a folder of this machine"),
        ("--records=other.txt", "other.txt, line 1, is no record of a run"),
        ("--out=", "--out is empty"),
        ("--out=runs[1]", "reads as a pattern"),
        ("--out=other.txt/runs", "other.txt is a file"),
        ("--set=data.folder=gs://bucket/data", "config.data.folder=gs://bucket/data is not"),
        ("--set=data.folder=a,b", "has more than one value"),
    ],
)
def test_wrong_places_get_one_paragraph(argument, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Driver, "_train_next", pytest.fail)
    (tmp_path / "other.txt").write_text('{"loss": 1}\n')
    with pytest.raises(SystemExit, match="2"):
        command("fashion_mnist", "--only=final-arb-none-if100-reversed", argument)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert part in error
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]
