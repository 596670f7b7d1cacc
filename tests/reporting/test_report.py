"""The report from folders to page: self-contained, escaped, and the same in a real browser."""

import base64
import contextlib
import html
import io
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from PIL import Image

from spa_jax import report
from spa_jax.report import report_page, write_report
from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.classes import draw_train_against_held_out
from spa_jax.reporting.finished_runs import find_run_folders, read_run, read_runs
from spa_jax.reporting.grouping import group_runs
from spa_jax.reporting.report_tables import differences_table
from tests.refusals import refusal
from tests.reporting.made_runs import write_run

FIGURES = ("alignment", "angle_by_class_size", "train_against_held_out", "gram", "collapse", "nc2")
VOID = {"meta", "img"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge")
FORMULAS = ("$a_b$", r"$\frac{")  # the names of data are in legends and titles
HOSTILE = ('<script>alert("x")</script>', "a & b", "'\"", "$x")


class Page(HTMLParser):
    """The elements of a page; a tag that is not closed where it must be is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.found, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of two methods and two seeds, and one run that is still being written."""
    root = tmp_path_factory.mktemp("report")
    for method in ("none", "reg"):
        for seed in (0, 1):
            write_run(root / "runs" / f"{method}{seed}", {"spa.method": method, "seed": seed}, 0.8)
    (write_run(root / "runs" / "slow", {"seed": 2}) / "summary.json").unlink()
    notes = write_report(
        [root / "runs"], root / "out" / "deep", "python -m spa_jax.report a --out b"
    )
    return root / "runs", root / "out" / "deep", notes


@pytest.fixture(scope="module")
def page(made):
    return Page((made[1] / "index.html").read_text())


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """A report of runs that hold what HTML, or a formula in a figure, reads as its own.

    As the command writes it: its arguments, what it prints, and the page.
    """
    root = tmp_path_factory.mktemp("hostile")
    for i, name in enumerate(FORMULAS):
        write_run(
            root / "<b>&amp; runs" / str(i),
            {"data.name": name},
            names=HOSTILE,
            per_class_test_cosine=[0.1, 0.9, 0.9, 0.9],  # the alternative text names the lowest
            command="train.py --x='<img src=http://example.org>' && true",
            collapse=False,
            geometry=False,
        )
    arguments = [str(root / "<b>&amp; runs"), "--out", str(root / "'<i>'")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert report.main(arguments) == 0
    return arguments, printed.getvalue(), root / "'<i>'" / "index.html"


@pytest.fixture(scope="module")
def hostile(commanded):
    return commanded[2]


def test_page_and_figures_are_written_as_png_and_svg(made):
    _, out, _ = made
    expected = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == {*expected, "index.html"}
    for name in FIGURES:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(out / f"{name}.svg").getroot().tag.endswith("}svg")


def test_the_page_holds_every_figure_with_words_and_needs_nothing_else(made, page):
    _, out, _ = made
    images = page.all("img")
    prefix = "data:image/svg+xml;base64,"
    shown = [base64.b64decode(image["src"].removeprefix(prefix)) for image in images]
    assert all(image["src"].startswith(prefix) for image in images)
    assert set(shown) == {(out / f"{name}.svg").read_bytes() for name in FIGURES}
    assert all(len(image["alt"]) > 60 for image in images)
    assert len(page.all("figcaption")) == len(images)
    assert not any(page.all(tag) for tag in ("script", "link", "iframe", "object"))
    links = [value for _, found in page.found for key, value in found.items() if key == "href"]
    assert all(link.startswith("#") for link in links)
    anchors = [found["id"] for _, found in page.found if "id" in found]
    assert len(set(anchors)) == len(anchors)
    assert {link[1:] for link in links} == set(anchors)
    (sheet,) = re.findall(r"<style>(.*?)</style>", (out / "index.html").read_text(), re.S)
    assert "@media print" in sheet
    assert not re.search(r"url\(|@import|https?:", sheet)


def test_files_are_the_same_at_every_run_and_have_300_dots_an_inch(made, figure_style, tmp_path):
    runs, out, _ = made
    finished, _ = read_runs(find_run_folders([runs]))
    (drawing,) = draw_train_against_held_out(group_runs(finished))
    for path in style.save(drawing, tmp_path):
        assert path.read_bytes() == (out / path.name).read_bytes()
    with Image.open(out / "train_against_held_out.png") as image:
        assert image.width == round(300 * style.WIDTH)


def test_tables_have_captions_and_headers_that_fit_their_rows(page):
    assert len(page.all("caption")) == len(page.all("table")) == 5
    text = " ".join(page.text.split())
    for words in ("Test accuracy", "Alignment", "Paired differences", "Classes", "Runs"):
        assert words in text
    scopes = [header["scope"] for header in page.all("th")]
    assert set(scopes) == {"col", "row"}


def test_every_command_every_run_and_what_is_missing_is_named(made, page):
    runs, _, notes = made
    for name in ("none0", "none1", "reg0", "reg1"):
        assert f"python train.py --config=configs/digits_lt.py --workdir={name}" in page.text
        assert str(runs / name) in page.text
    assert "python -m spa_jax.report a --out b" in page.text
    assert "Sweep curves" in page.text
    assert "epoch 6 of 6, no summary.json yet" in page.text
    assert len(notes) == 2
    assert str(runs / "slow") in notes[0]
    assert "Sweep curves" in notes[1]


def test_what_comes_from_runs_is_text_on_the_page_and_never_markup(hostile):
    text = hostile.read_text()
    page = Page(text)
    assert not any(page.all(tag) for tag in ("script", "b", "i"))
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert any(f"class {HOSTILE[0]}." in image["alt"] for image in page.all("img"))
    for name in (*HOSTILE, *FORMULAS, "<img src=http://example.org>", "<b>&amp;", "<i>"):
        assert name in page.text
    assert "&lt;script&gt;" in text
    assert "Gram matrices" in page.text
    assert "no run has a geometry.npz" in page.text


def test_runs_on_another_split_are_marked_and_other_classes_refused(tmp_path):
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", {"spa.method": "reg"}, split="other")
    groups = group_runs([read_run(a), read_run(b)])
    contents = {"differences": list(differences_table(groups))}
    text = Page(report_page(groups, contents, [], "", tmp_path)).text
    assert "† Another split or other data than spa.method=none: spa.method=reg" in text
    assert "not paired: 1 with another split or other data" in text
    c = write_run(tmp_path / "c", counts=(3, 2))
    message = refusal(write_report, [a, c], tmp_path / "other")
    assert "different numbers of classes: 4" in message
    assert not (tmp_path / "other").exists()


def test_what_was_not_recorded_is_said_for_each_figure_and_in_the_cells(tmp_path):
    fields = ("mean_cosine", "test_mean_cosine", "per_class_cosine", "per_class_test_cosine")
    bare = write_run(tmp_path / "a", collapse=False, geometry=False, **dict.fromkeys(fields))
    lines = [json.dumps({"epoch": epoch, "test_accuracy": 0.5}) for epoch in (1, 2)]
    (bare / "metrics.jsonl").write_text("\n".join(lines))
    notes = write_report([bare], tmp_path / "out")
    assert len(notes) == len(FIGURES) + 1  # and no sweep
    for recorded in ("mean_cosine", "per_class_test_cosine", "geometry.npz", "`collapse`"):
        assert any(recorded in note for note in notes)
    assert "three values" in notes[-1]
    text = (tmp_path / "out" / "index.html").read_text()
    assert "<td>\u2013</td>" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


def test_an_out_that_cannot_take_a_report_is_refused(tmp_path):
    run = write_run(tmp_path / "a")
    assert "is the folder of a run" in refusal(write_report, [run], run)
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(write_report, [run], tmp_path / "file")


def test_the_command_prints_where_the_report_is_and_records_itself(commanded):
    arguments, printed, written = commanded
    assert f"Report: {written}" in printed
    assert "Not drawn: Neural collapse over epochs" in printed
    text = Page(written.read_text()).text
    assert f"python -m spa_jax.report {shlex.join(arguments)}" in text


def test_the_command_exits_with_2_and_one_line_for_wrong_input(tmp_path, capsys):
    assert report.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "nowhere does not exist" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        report.main(["--out", str(tmp_path)])


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Runs a headless browser on a file and returns what it prints; skips where none works."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on the path: {', '.join(BROWSERS)}")

    def run(page, *options):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,900"]
        profile = f"--user-data-dir={page.parent / 'profile'}"
        address = f"file://{quote(str(page))}"
        command = [found, *flags, profile, *options, address]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    # One that lives in a sandbox of its own may not see temporary files.
    trial = tmp_path_factory.mktemp("browser") / "trial.html"
    trial.write_text("<!DOCTYPE html><title>trial</title><p>a page that can be read</p>")
    if "a page that can be read" not in run(trial, "--dump-dom").stdout:
        pytest.skip(f"{found} cannot read a file in {trial.parent}")
    return run


PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth]);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const fetched = performance.getEntriesByType("resource").map(e => e.name.slice(0, 5));
  const tables = [...document.querySelectorAll("table")].map(t => t.clientWidth);
  const markup = document.querySelectorAll("table script, table b, table img").length;
  document.title = JSON.stringify({images, wide, fetched, tables, markup});
});</script></head>"""


@pytest.mark.parametrize("which", ["whole", "hostile"])
def test_in_a_browser_every_image_shows_nothing_is_fetched_and_nothing_sticks_out(
    which, made, hostile, browse, tmp_path
):
    text = (hostile if which == "hostile" else made[1] / "index.html").read_text()
    # The page's own policy forbids scripts, the probe among them.
    probed = re.sub(r"<meta http-equiv=.*?>", "", text).replace("</head>", PROBE)
    (tmp_path / "page.html").write_text(probed)
    dom = browse(tmp_path / "page.html", "--dump-dom", "--virtual-time-budget=5000").stdout
    (title,) = re.findall(r"<title>(.*?)</title>", dom)
    seen = json.loads(html.unescape(title))
    assert len(seen["images"]) == text.count("<img ")
    assert all(done and natural > 200 and shown > 200 for done, natural, shown in seen["images"])
    assert seen["wide"] <= 0
    assert set(seen["fetched"]) <= {"data:"}
    assert all(seen["tables"])
    assert seen["markup"] == 0


def test_in_a_browser_the_page_prints(made, browse, tmp_path):
    shutil.copy(made[1] / "index.html", tmp_path / "page.html")
    browse(tmp_path / "page.html", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    printed = Path(tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 10
    assert b"/MediaBox [0 0 595" in printed or b"/MediaBox [0 0 594" in printed


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("gs://bucket/report", "is not a folder of this machine"),
        ("", "is empty"),
        ("x" * 300, "longer than 255 bytes"),
        ("/proc/report", "/proc cannot be written to"),
    ],
)
def test_places_that_cannot_be_are_refused_in_one_paragraph(given, part, tmp_path, capsys):
    run = str(write_run(tmp_path / "run"))
    arguments = [[run, f"--out={given}"]]
    if part != "/proc cannot be written to":
        arguments.append([given, f"--out={tmp_path / 'out'}"])
    for values in arguments:
        assert report.main(values) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert part in error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
