"""Configuration files that give no configuration, and what follows the colon of their names."""

import os
import socket
import subprocess
import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from spa_jax.command_line import errors_told, join_cluster, parse_argument, parse_flags, read_config
from spa_jax.errors import InputError
from tests.refusals import refusal

DEFAULTS = {"imbalance_factor": 100.0, "model": "cifar_resnet", "depth": 32}


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("", {}),
        ("imbalance_factor=200", {"imbalance_factor": 200.0}),
        ("imbalance_factor=1e3", {"imbalance_factor": 1000.0}),
        ("imbalance_factor=.5", {"imbalance_factor": 0.5}),
        ("model=small", {"model": "small"}),
        ("model=200", {"model": "200"}),
        ("depth=-20", {"depth": -20}),
        ("model=a=b", {"model": "a=b"}),
        (
            "model=small,imbalance_factor=10,depth=56",
            {"model": "small", "imbalance_factor": 10.0, "depth": 56},
        ),
        ("depth=20,", {"depth": 20}),
    ],
)
def test_what_is_given_gets_the_type_of_its_default_and_the_rest_stays(argument, changed):
    values = parse_argument(argument, DEFAULTS)
    assert values == DEFAULTS | changed
    assert [type(value) for value in values.values()] == [float, str, int]


def test_the_defaults_are_left_alone():
    defaults = dict(DEFAULTS)
    parse_argument("depth=20", defaults)["model"] = "changed"
    assert defaults == DEFAULTS


@pytest.mark.parametrize(
    ("argument", "offender"),
    [
        ("imbalance=200", "'imbalance=200'"),
        ("200", "'200'"),
        ("model", "'model'"),
        ("=small", "'=small'"),
        ("depth=20,gamma=3", "'gamma=3'"),
        ("Model=small", "'Model=small'"),
    ],
)
def test_what_is_no_name_with_a_value_is_refused_with_the_names(argument, offender):
    message = refusal(parse_argument, argument, DEFAULTS)
    assert "imbalance_factor=VALUE, model=VALUE, depth=VALUE" in message
    assert "after the colon, separated by commas" in message
    assert message.endswith(f"got {offender}.")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (
            "imbalance_factor=high",
            "imbalance_factor takes values of type float, as its default 100.0 is; got 'high'",
        ),
        (
            "imbalance_factor=",
            "imbalance_factor takes values of type float, as its default 100.0 is; got ''",
        ),
        ("depth=2.5", "depth takes values of type int, as its default 32 is; got '2.5'"),
        (
            "model=small,depth=deep",
            "depth takes values of type int, as its default 32 is; got 'deep'",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_default(argument, expected):
    assert expected in refusal(parse_argument, argument, DEFAULTS)


def test_only_the_first_wrong_name_is_told():
    assert "'one'" in refusal(parse_argument, "one,two", DEFAULTS)


START = "from spa_jax.training.config import default_config\ndef get_config():\n    c = "
WRONG_FILES = {
    "a dictionary": ("def get_config():\n    return {'epochs': 1}\n", "returns dict"),
    "a number": ("def get_config():\n    return 3\n", "returns int"),
    "nothing": ("def get_config():\n    pass\n", "returns None"),
    "no function": ("epochs = 3\n", "has no function get_config"),
    "half a line": ("def get_config(:\n", "invalid syntax"),
    "a missing module": ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named"),
    "a division by zero": ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
    "a group for a value": (
        START + "default_config()\n    c.epochs = {'a': 1}\n    return c\n",
        "line 4: TypeError: Could not override field 'epochs'",
    ),
    "a value for a group": (
        START + "default_config()\n    c.spa = 3\n    return c\n",
        "line 4: TypeError: Could not override field 'spa'",
    ),
    "a text for a number": (
        START + "default_config()\n    c.epochs = 'many'\n    return c\n",
        "line 4: TypeError: Could not override field 'epochs'",
    ),
    "another field": (
        START + "default_config()\n    c.model.depth = 20\n    return c\n",
        "config.model.depth has a new name",
    ),
}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_file_that_gives_no_configuration_gets_one_paragraph(case, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # another case's file
    content, part = WRONG_FILES[case]
    file, known = tmp_path / "mine.py", {*flags.FLAGS}
    file.write_text(content)
    try:
        config_flags.DEFINE_config_file("config", None, "The configuration file.")
        flags.mark_flag_as_required("config")
        with pytest.raises(SystemExit, match="2"):
            parse_flags(["command", f"--config={file}"])
            read_config()
    finally:
        flags.FLAGS.remove_flag_values({*flags.FLAGS} - known)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert part in error
    assert "Traceback" not in error


def test_hosts_that_no_cluster_names_are_not_joined(monkeypatch):
    """Whichever way JAX says so: it misses an address, or one does not answer."""
    for error in (ValueError("coordinator_address should be defined."), RuntimeError("no answer")):

        def fail(error=error, **options):
            raise error

        monkeypatch.setattr(jax.distributed, "initialize", fail)
        message = refusal(join_cluster, 100)
        assert message.startswith("--distributed joins the hosts")
        assert str(error) in message


def test_hosts_that_are_joined_are_named_with_their_numbers(monkeypatch, capsys):
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: given.update(options))
    join_cluster(30)
    assert given == {"heartbeat_timeout_seconds": 30}
    expected = f"Hosts: 0 is {socket.gethostname()}. If one is silent for 30 s, the others end.\n"
    assert capsys.readouterr().out == expected


def test_ctrl_c_ends_a_command_with_its_status():
    with pytest.raises(SystemExit, match="130"), errors_told():
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "error", [InputError("two\nlines"), OSError(28, "No space left"), FloatingPointError("nan")]
)
def test_what_a_person_can_mend_is_told_in_one_paragraph(error, capsys):
    with pytest.raises(SystemExit, match="2"), errors_told():
        raise error
    assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"


@pytest.mark.thorough
def test_compiled_programs_are_kept_in_the_users_cache(tmp_path):
    """What a command compiles is read by the next; a folder that cannot be made stops none."""
    code = (
        "import jax, sys; from spa_jax.command_line import keep_compiled_programs as keep; keep();"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
        "jax.jit(lambda x: x * 3)(1.0); print(jax.config.jax_compilation_cache_dir)"
    )
    of_this_session = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")
    given = {k: v for k, v in os.environ.items() if not k.startswith(of_this_session)}

    def kept(**environment):
        result = subprocess.run(
            [sys.executable, "-c", code], env=given | environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    folder = tmp_path / "spa_jax" / "compiled"
    assert kept(XDG_CACHE_HOME=str(tmp_path)) == str(folder)
    assert list(folder.iterdir())
    assert kept(XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR="/x") == "/x"
    (tmp_path / "file").touch()
    assert kept(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"
