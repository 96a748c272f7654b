"""The doctor finds each published defect, and nothing where nothing is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamprm.commands.doctor import main as doctor
from dreamprm.doctor.digits import digits_at_risk, digits_lost


def main(arguments: list[str]) -> int:
    """The exit status of the command."""
    try:
        doctor(arguments)
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any], dict[str, dict[str, Any]]]]:
    """(exit status, the whole report, findings on `data` and `all` by name)."""

    def run(*arguments: str) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
        target = tmp_path / "report.json"
        status = main([*arguments, f"json={target}", f"quarantine={tmp_path / 'bad.jsonl'}"])
        report = json.loads(target.read_text())
        listed = report["findings"].get("data", []) + report["findings"].get("all", [])
        return status, report, {finding["name"]: finding for finding in listed}

    return run


def _question(index: int, **fields: Any) -> dict[str, Any]:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    name = " ".join(words[int(digit)] for digit in str(index))
    return {"question": f"What is {name}?", "steps": ["first", "second"], **fields}


def test_the_published_meta_set_of_dreamprm15(real_data: Path, examine: Callable[..., Any]) -> None:
    status, report, findings = examine(f"data.path={real_data / 'dreamprm_meta' / 'meta_MMMU_Pro.json'}")
    assert status == 1
    counts = report["data"]["data"]
    assert (counts["rows"], counts["questions"], counts["chains"]) == (1656, 414, 1656)
    assert counts["chains_per_question"] == {"4": 414}
    assert counts["correct"] == {"right": 834, "wrong": 822}
    assert findings["bare_answers"]["count"] == 896
    assert findings["few_mixed_questions"]["count"] == 148
    assert "also those of 822 chains" in findings["placeholder_labels"]["message"]
    assert findings["digits_lost"]["count"] >= 50
    assert findings["ids_repeated"]["message"] == "1,656 rows share 414 ids"
    assert findings["images_missing"]["count"] == 414


def test_the_published_meta_set_of_dreamprm(real_data: Path, examine: Callable[..., Any]) -> None:
    status, report, findings = examine(f"data.path={real_data / 'dreamprm_meta' / 'DreamPRM_meta.json'}")
    assert status == 1
    assert findings["rows_without_steps"]["count"] == 372
    assert "has steps -> right in 128 of 128 chains" in findings["trivial_feature"]["message"]
    assert findings["ids_repeated"]["message"] == "500 rows share 371 ids"
    assert report["data"]["data"]["trivial_features"]["has steps"] == pytest.approx(0.757, abs=1e-3)


def test_overlap_of_the_published_sets_with_themselves(real_data: Path, examine: Callable[..., Any]) -> None:
    path = real_data / "dreamprm_meta" / "meta_MMMU_Pro.json"
    _, _, findings = examine(f"data.path={path}", f"test.path={path}", "max_images=1")
    assert findings["overlap"]["count"] == 414


def test_constant_ids_imbalance_and_duplicates(write_rows: Callable[..., Path], examine: Callable[..., Any]) -> None:
    def row(index: int, verdict: str) -> dict[str, Any]:
        turns = [
            {"from": "human", "value": f"### Question:\nq{index}\n\n### Solution Process:\na step"},
            {"from": "gpt", "value": verdict},
        ]
        return {"id": -1, "conversations": turns}

    rows = [row(i, "-" if i % 50 == 0 else "+") for i in range(100)] + [row(3, "+")]
    _, report, findings = examine(f"data.path={write_rows(*rows)}")
    assert findings["ids_constant"]["message"] == "every row has the id '-1'"
    assert findings["duplicates"]["count"] == 1
    assert "1.98% of the step labels are wrong" in findings["imbalance"]["message"]
    assert report["data"]["data"]["labels"]["wrong"] == 2
    _, _, findings = examine(f"data.path={write_rows(*[row(i, '+') for i in range(100)])}")
    assert findings["labels_constant"]["severity"] == "error"


def test_overlap_by_words_across_formats(write_rows: Callable[..., Path], examine: Callable[..., Any]) -> None:
    train = write_rows(*[_question(i, labels=[1, i % 2]) for i in range(20)], name="train.jsonl")
    prompts = [
        {"prompt": f"### {_question(i)['question'].upper()}", "completions": ["a"], "labels": [True]} for i in (3, 4)
    ]
    meta = write_rows(*prompts, name="meta.jsonl")
    _, _, findings = examine(f"data.path={train}", f"meta.path={meta}")
    assert findings["overlap"]["message"] == "data and meta share 2 questions"
    assert "What is" in findings["overlap"]["examples"][0]


def test_a_sound_file_has_no_grave_finding(write_rows: Callable[..., Path], examine: Callable[..., Any]) -> None:
    rows = [
        _question(i, steps=["so", f"it is {k}"], labels=[i % 2, (i + k) % 2], correct=(i + k) % 2 == 0)
        for i in range(30)
        for k in range(2)
    ]
    status, report, findings = examine(f"data.path={write_rows(*rows)}")
    assert status == 0
    assert not findings
    assert report["data"]["data"]["chains_per_question"] == {"2": 30}
    assert report["data"]["data"]["mixed_questions"] == 30


def test_images_missing_broken_and_huge(
    write_rows: Callable[..., Path], examine: Callable[..., Any], tmp_path: Path
) -> None:
    import PIL.Image

    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    PIL.Image.new("RGB", (800, 4)).save(tmp_path / "strip.png")
    names = ["good.png", "bad.png", "none.png", "strip.png"]
    rows = [_question(i, images=[name], labels=[1, 0]) for i, name in enumerate(names)]
    _, report, findings = examine(f"data.path={write_rows(*rows)}")
    assert report["data"]["data"]["images"] == {"files": 4, "checked": 4, "missing": 1, "broken": 1}
    assert findings["images_extreme"]["examples"] == [f"{tmp_path / 'strip.png'}: 800 x 4"]
    assert {"images_missing", "images_broken"} <= findings.keys()
    assert "none.png" in findings["images_missing"]["examples"][0]


def test_trivial_features_policies_and_special_signs(
    write_rows: Callable[..., Path], examine: Callable[..., Any]
) -> None:
    rows = [
        _question(i, steps=["<|im_end|> long " * (1 + 9 * (i % 2))], correct=i % 2 == 0, policy=f"m{i % 2}")
        for i in range(60)
    ]
    _, report, findings = examine(f"data.path={write_rows(*rows)}")
    assert report["data"]["data"]["trivial_features"]["policy (prefer the stronger model)"] == 1.0
    assert report["data"]["data"]["trivial_features"]["length of the chain"] == 1.0
    assert findings["trivial_baseline"]["severity"] == "warning"
    assert "<|im_end|>" in findings["special_tokens"]["message"]


def test_bad_rows_are_listed_counted_or_stop(
    write_rows: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(*[_question(i, labels=[1, i % 2]) for i in range(9)], _question(9, labels=[1, 7]))
    side = tmp_path / "side.jsonl"
    assert main([f"data.path={path}", f"quarantine={side}"]) == 1
    (listed,) = [json.loads(line) for line in side.read_text().splitlines()]
    assert (listed["file"], listed["row"], listed["field"]) == (str(path), 10, "labels[1]")
    assert "must lie in [0, 1], is 7" in listed["reason"]
    assert "1 of 10 rows cannot be read" in " ".join(capsys.readouterr().out.split())
    assert main([f"data.path={path}", "on_bad_row=error"]) == 2
    assert "rows.jsonl, row 10, labels[1]: must lie in [0, 1], is 7" in capsys.readouterr().err
    side.unlink()
    assert main([f"data.path={path}", "on_bad_row=skip", f"quarantine={side}"]) == 1
    assert not side.exists()
    assert main([f"data.path={path}"]) == 1
    assert sorted(path.parent.glob("*bad_rows*")) == []  # it changes nothing unless asked to
    assert main([f"data.path={path}", "on_bad_row=quarantine"]) == 1
    assert Path(f"{path}.bad_rows.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["data.pth=x"], "data.pth: no such setting; data allows path, format, images"),
        (["train.path=x"], "train: no such setting; allowed are data, meta, test, json"),
        (["nonsense"], "'nonsense' is no setting: write name=value"),
        (["json=-"], "data.path is missing"),
        (["data.path=none.jsonl"], "none.jsonl: is not there"),
        (["data.path=none.jsonl", "max_images=-1"], "max_images must be at least 0"),
        (
            ["data.path=none.jsonl", "on_bad_row=ignore"],
            "on_bad_row: Invalid value 'ignore', expected one of [error, skip",
        ),
    ],
)
def test_wrong_settings_are_clear_errors(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err


def test_json_on_standard_output(write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(*[_question(i, labels=[1, i % 2]) for i in range(4)])
    assert main([f"data.path={path}", "data.format=records", "json=-"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["data"]["formats"] == ["records"]


def test_the_entry_runs_from_a_checkout(write_rows: Callable[..., Path]) -> None:
    path = write_rows(*[_question(i, labels=[1, i % 2]) for i in range(4)])
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "dreamprm", "doctor", f"data.path={path}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "step labels +" in done.stdout


def test_digits() -> None:
    assert digits_lost("1. It is 1 / 0.2 = 5.\n2. So", ("It is 1 / 0.2 =", "So")) == "1 digits lost (5)"
    assert digits_lost("1. It is 5.\n2. So", ("It is 5.", "So")) == ""
    assert "50)" in digits_at_risk("It is (100 + 50) / 165.")
    assert digits_at_risk("1. It is 5\n2. So 7") == ""


def test_the_doctor_sees_what_a_model_would_not(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    import os

    import PIL.Image

    PIL.Image.effect_noise((64, 64), 90).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "postscript.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["cut.png", "postscript.png", "pipe.png", "absent.png"]
    path = write_rows(*[_question(i, labels=[1, i % 2], images=[name]) for i, name in enumerate(names)])
    target = tmp_path / "report.json"
    assert main([f"data.path={path}", f"meta.path={path}", f"meta.images={tmp_path}", f"json={target}"]) == 1
    for name, listed in json.loads(target.read_text())["findings"].items():
        found = {finding["name"]: finding for finding in listed}
        if name == "meta":
            assert found["images_broken"]["count"] == 3
            assert found["images_missing"]["advice"] == "set meta.images to their root"
