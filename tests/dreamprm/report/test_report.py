"""The page stands alone, shows what is known, and leaves out what is not."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from dreamprm.errors import UserError
from dreamprm.evaluate.verdict import NO_GAIN
from dreamprm.report import print_results, write_report
from dreamprm.report.plots import smooth


def test_the_page_needs_nothing_beside_it(finished_run: Path) -> None:
    text = write_report(finished_run).read_text()
    assert "<script" not in text
    for address in re.findall(r'(?:src|href)=["\']([^"\']*)', text):
        assert address.startswith(("data:image/", "#")), address
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) == 8
    for figure in figures:
        ElementTree.fromstring(figure)  # well-formed, or the page ends there


def test_it_shows_the_results_and_the_truth(finished_run: Path) -> None:
    text = write_report(finished_run).read_text()
    for words in ("0.780", "weights find the bad", "Highest weights", "Lowest weights", "mislabelled", "AUC of 0.980"):
        assert words in text
    assert "&lt;b&gt;Count&lt;/b&gt;" in text, "questions are data, not markup"
    assert text.count("<article>") == 12


def test_without_known_truth_it_claims_none(run_without_truth: Path) -> None:
    text = write_report(run_without_truth).read_text()
    assert "weights find the bad" not in text
    assert "Weights by known quality" not in text
    assert text.count("<svg") == 7


def test_the_same_run_gives_the_same_page(finished_run: Path) -> None:
    one = write_report(finished_run).read_bytes()
    assert write_report(finished_run).read_bytes() == one


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no results\.json"):
        write_report(tmp_path)


def test_the_table_fits_eighty_characters(finished_run: Path) -> None:
    stream = io.StringIO()
    results = json.loads((finished_run / "results.json").read_text())
    print_results(results, Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert "…" not in stream.getvalue(), "nothing is cut"
    assert max(map(len, lines[:7])) <= 80
    assert "PRM, best of N" in stream.getvalue()


def test_the_running_mean() -> None:
    assert smooth([1.0, 3.0, 5.0, 7.0], 2).tolist() == [1.0, 2.0, 4.0, 6.0]


HOSTILE = "<script>document.title='PWNED'</script>"


def test_nothing_of_a_run_is_markup(finished_run: Path) -> None:
    """Whoever renders somebody else's folder runs nothing of theirs."""
    results = json.loads((finished_run / "results.json").read_text())
    results |= {"experiment": HOSTILE, "seed": HOSTILE, "description": HOSTILE, "verdict": HOSTILE}
    results["best_of_n"]["prm"]["8"]["n"] = results["best_of_n"]["policy"]["1"]["n"] = HOSTILE
    results["weights"][HOSTILE] = 1.0
    (finished_run / "results.json").write_text(json.dumps(results))
    (finished_run / "config.yaml").write_text(f"name: {HOSTILE}")
    rows = pq.read_table(finished_run / "examples.parquet").to_pylist()
    rows[0] |= {"question": HOSTILE, "domain": HOSTILE, "steps": [HOSTILE, "b", "c", "d"]}
    pq.write_table(pa.Table.from_pylist(rows), finished_run / "examples.parquet")
    weights = pq.read_table(finished_run / "weights.parquet").to_pydict()
    weights["domain"][0], weights["domain"][1] = HOSTILE, "$x_{1$"  # no formula of matplotlib's either
    pq.write_table(pa.table(weights), finished_run / "weights.parquet")
    text = write_report(finished_run).read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 10


@pytest.mark.parametrize(
    "change",
    [{"best_of_n": {"prm": {"8": 3}}}, {"best_of_n": []}, {"meta": {"auc": 1}}, {"cost": {"check_error": "x"}}],
)
def test_results_that_no_run_writes_are_one_message(finished_run: Path, change: dict[str, object]) -> None:
    results = json.loads((finished_run / "results.json").read_text()) | change
    (finished_run / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="not what a run writes"):
        write_report(finished_run)


def test_the_headline_says_what_it_is_compared_with(finished_run: Path) -> None:
    text = write_report(finished_run).read_text()
    assert "PRM, best of 8" in text
    for words in ("above policy alone (0.510)", "above self-consistency (0.700)", "above cold-started PRM (0.600)"):
        assert words in text
    assert '<p class="verdict yes">the meta set gave a signal' in text


def test_a_signal_without_a_gain_is_not_shown_in_green(finished_run: Path) -> None:
    results = json.loads((finished_run / "results.json").read_text())
    results["verdict"] += f"; but best of 8 against the policy alone +0.010 (-0.040 to 0.060), {NO_GAIN}"
    (finished_run / "results.json").write_text(json.dumps(results))
    assert '<p class="verdict ">the meta set gave a signal' in write_report(finished_run).read_text()


def test_the_run_without_selection_stands_beside_it(make_run: Callable[[Path], Path], tmp_path: Path) -> None:
    ours, other = (make_run(tmp_path / "runs" / name / "seed0") for name in ("instance_net", "no_selection"))
    shared = {"seed": 0, "data": {"kind": "world"}, "inner": {"updates": 150}}
    for folder, kind in ((ours, "instance_net"), (other, "uniform")):
        (folder / "config.yaml").write_text(yaml.safe_dump(shared | {"weigher": {"kind": kind}}))
    half = tmp_path / "runs" / "a neighbour" / "seed0"  # comes first, and its run is just writing its results
    half.mkdir(parents=True)
    (half / "config.yaml").write_text((other / "config.yaml").read_text())
    (half / "results.json").write_text('{"figures": ')
    assert "PRM, without selection" in write_report(ours).read_text()
    assert "PRM, without selection" not in write_report(other).read_text()
    (other / "config.yaml").write_text(yaml.safe_dump(shared | {"seed": 1, "weigher": {"kind": "uniform"}}))
    assert "PRM, without selection" not in write_report(ours).read_text(), "another seed is another run"
