"""What follows the colon in `--config=configs/FILE.py:NAME=VALUE,NAME=VALUE`."""

import pytest

from spa_jax.command_line import parse_argument
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
