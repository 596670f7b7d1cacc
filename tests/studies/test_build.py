"""The pages are those of the records, and one command makes them."""

import json
import re

import pytest
from PIL import Image

from spa_jax.reproduction.cells import read_records
from studies.build import PAGES, REPOSITORY, main, with_tables
from studies.contact_sheets import SHEETS
from studies.geometry_figures import FIGURES as GEOMETRY_FIGURES
from studies.reproduction.reproduction_figures import FIGURES, records_checksum
from studies.reproduction.sections import SECTIONS
from studies.study import STUDIES
from studies.tables import record_table
from studies.theory.figures import FIGURES as THEORY_FIGURES
from tests.studies.made_experiments import write_experiment

TEXTS = {name: (REPOSITORY / path).read_text() for name, path in PAGES.items()}


@pytest.mark.thorough  # of thousands of records
@pytest.mark.parametrize("page", PAGES)
def test_every_table_is_the_one_of_its_record(page):
    assert with_tables(TEXTS[page]) == TEXTS[page]


def test_every_record_and_every_section_stands_on_a_page():
    text = "".join(TEXTS.values())
    assert {*re.findall(r"<!-- reproduction: (\S+) -->", text)} == {*SECTIONS}
    shown = re.findall(r"<!-- table: results/(\S+) -->", text)
    results = REPOSITORY / "results"
    records = (path.relative_to(results).as_posix() for path in results.rglob("*.json"))
    assert {*shown} >= {*records}  # of one that is not there yet the page says so


def test_every_figure_is_drawn_from_the_records_that_there_are():
    drawn = sorted((REPOSITORY / "docs/reproduction").glob("*.png"))
    assert {path.stem for path in drawn} >= {"differences", "epochs"}
    for path in drawn:
        table, _ = FIGURES[path.stem]
        with Image.open(path) as picture:
            checksum = picture.info["Description"]
        assert checksum == records_checksum(REPOSITORY / "results" / f"{table}.jsonl"), path
        assert f"reproduction/{path.name})" in TEXTS["results"] + TEXTS["reproduction"]


def test_runs_on_the_bank_of_another_machine_give_what_the_first_gave():
    results, found = REPOSITORY / "results", []
    for table in ("features_cifar10", "features_cifar100"):
        found += read_records(results / f"{table}.jsonl")
    first = {(record["dataset"], record["cell"]): record["summary"] for record in found}
    again = read_records(results / "features_other_bank.jsonl")
    assert len(again) == 80
    for record in again:
        before, after = first[record["dataset"], record["cell"]], record["summary"]
        assert before["split_checksum"] == after["split_checksum"]
        assert before["params_checksum"] != after["params_checksum"]  # or they are of one bank
        difference = after["test_accuracy"]["last"] - before["test_accuracy"]["last"]
        assert abs(difference) < 1.5e-4  # an image of 10,000
        assert after["test_mean_cosine"] == pytest.approx(before["test_mean_cosine"], abs=1e-6)


@pytest.mark.parametrize(("page", "names"), [("augmentation", SHEETS), ("theory", THEORY_FIGURES)])
def test_every_drawing_stands_on_its_page_once(page, names):
    shown = re.findall(rf"\]\({page}/(\w+)\.png\)", TEXTS[page])
    assert sorted(shown) == sorted(names)
    assert {path.stem for path in (REPOSITORY / "docs" / page).glob("*.png")} == {*names}


@pytest.mark.parametrize("page", GEOMETRY_FIGURES)
def test_every_drawing_of_the_geometry_stands_on_its_page(page):
    assert f"]({page}.png)" in TEXTS[page]
    assert (REPOSITORY / PAGES[page]).with_suffix(".png").exists()


def test_a_benchmark_without_a_record_has_its_table_too():
    record = {
        "benchmark": "overhead",
        "date": "2026-01-31",
        "jax": "0.10",
        "hardware": {"cpu_count": 2, "platform": "cpu"},
        "milliseconds": {"digits": {"none": 2.0, "proj": 2.5}},
        "microseconds": {"10 x 64": {"spa_proj": 12.4, "spa_slerp": 30.0}},
    }
    assert "| digits | 2 (+0.0 %) | 2.5 (+25.0 %) |" in record_table(record).splitlines()
    rows = record_table(record | {"benchmark": "alignment_cost"}).splitlines()
    assert "| 10 x 64 | 12 (1.0) | 30 (2.4) |" in rows
    assert rows[-1].endswith("2 CPU cores, cpu; 2026-01-31.")


def test_the_command_measures_a_study_and_makes_its_page(tmp_path, capsys):
    name = "train_and_held_out"
    write_experiment(tmp_path / "runs", seeds=(0, 1), methods=("none",))
    page = tmp_path / PAGES[name]
    page.parent.mkdir(parents=True)
    (tmp_path / "results").mkdir()
    record = f"results/studies_{name}.json"
    page.write_text(f"Before\n\n<!-- table: {record} -->\n\n<!-- end -->\n\nAfter\n")
    root = ["--root", str(tmp_path)]
    assert main([name, *root]) == 0
    assert "Not run yet." in page.read_text()
    assert main([name, "--runs", str(tmp_path / "runs"), *root]) == 0
    text = page.read_text()
    assert text.startswith("Before\n")
    assert text.endswith("\nAfter\n")
    assert "**Digits-LT, imbalance factor 10**" in text
    assert "85 training images, 6 epochs, seeds 0, 1;" in text
    assert json.loads((tmp_path / record).read_text())["study"] == name
    assert str(tmp_path) not in (tmp_path / record).read_text()
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert main([name, *root]) == 0
    assert page.read_text() == text
    assert capsys.readouterr().out.splitlines() == [str(page)] * 3


def test_a_study_needs_its_methods(tmp_path, capsys):
    write_experiment(tmp_path / "runs", seeds=(0,), methods=("none", "proj"))
    runs = ["--runs", str(tmp_path / "runs"), "--root", str(tmp_path)]
    assert main(["nc2_convergence", *runs]) == 2
    message = capsys.readouterr().err
    assert "has no finished run with spa.method reg, only with none, proj" in message
    assert "--methods=none,reg,proj" in message
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nc3"], ["no page 'nc3'", *PAGES]),
        (["--runs", "runs"], ["--runs is for one study", *STUDIES]),
        (["theory", "--runs", "runs"], ["--runs is for one study", *STUDIES]),
    ],
)
def test_wrong_arguments_are_answered_with_the_right_ones(arguments, expected, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == []
