"""Wrong inputs: what a newcomer types and gives, and what cannot work. Each must end in one line with status 2."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.small import Small, write_rows
from benchmarks.faults.trial import Finding, judge, try_command

__all__ = ["try_inputs"]

Rows = list[dict[str, Any]]
_HUGE = "9" * 401


def _settings(small: Small) -> Iterator[tuple[str, list[str], str]]:
    """(what, words of `dreamprm train`, expected words) of settings that are wrong by themselves."""
    yield "a group misspelt", small.words("iner.updates=5"), "did you mean inner?"
    yield "a setting misspelt", small.words("inner.update=5"), "did you mean updates?"
    yield "dashes before an experiment", ["--experiment", "instance_net"], "write experiment=instance_net"
    yield "dashes before a setting", ["--inner.updates=5"], "write inner.updates=5"
    yield "an experiment misspelt", ["experiment=instancenet"], "did you mean instance_net?"
    yield "an experiment misspelt, with a plus", ["+experiment=instancenet"], "did you mean instance_net?"
    yield "a word without a value", ["instance_net"], "write experiment=instance_net"
    yield "a negative rate", small.words("inner.optimizer.lr=-1e-4"), "inner.optimizer: lr must"
    yield "a rate with a letter", small.words("inner.optimizer.lr=1e-4x"), "inner.optimizer.lr: Value '1e-4x'"
    for phase in ("cold", "inner", "outer"):
        for setting, value in (
            ("optimizer.lr", "nan"),
            ("optimizer.lr", "inf"),
            ("optimizer.lr", "1e38"),
            ("optimizer.weight_decay", "nan"),
            ("optimizer.kind", "os.system"),
            ("schedule.warmup", "2"),
            ("schedule.kind", "cosinus"),
            ("clip_norm", "nan"),
            ("clip_norm", "-1"),
            ("batch_size", "0"),
            ("accumulate", "0"),
        ):
            name = f"{phase}.{setting}"
            yield f"{name}={value}", small.words(f"{name}={value}"), phase
    yield "betas out of range", small.words("inner.optimizer.betas=[1,2]"), "betas"
    yield "a huge seed", small.words("seed=99999999999999999999999"), "seed must lie within"
    yield "a negative seed", small.words("seed=-1"), "seed must"
    yield "a negative limit", small.words("data.limit=-5"), "data: limit must"
    yield "a negative number of updates", small.words("inner.updates=-1"), "inner: updates must"
    yield "a batch of a thousand millions", small.words("inner.batch_size=1000000000"), "is larger than the 24 training"
    yield "an interpolation on the command line", small.words("name=${oc.env:HOME}"), "is not looked up here"
    yield "an object to build", small.words("weigher._target_=os.system"), "weigher"
    yield "a kind of weigher that is none", small.words("weigher.kind=nett"), "weigher"
    yield "a loss that is none", small.words("inner.loss=mes"), "did you mean mse?"
    yield "several values without --multirun", small.words("seed=0,1"), "several runs need --multirun"
    yield "data that need downloading", ["experiment=dreamprm15_net"], "needs:"
    yield "rows that no sparse table may move", small.words("weigher=instance_table", "weigher.sparse=true"), "row_adam"
    yield "steps weighed by ghost", small.words("weigher=step_net", "hypergradient.product=ghost"), "hypergradient=jvp"


def _data(small: Small, folder: Path) -> Iterator[tuple[str, list[str], str]]:
    """The same of data: files that are missing, broken, or cannot teach what they are to teach."""
    train: Rows = small.rows(small.train)  # type: ignore[assignment]
    meta: Rows = small.rows(small.meta)  # type: ignore[assignment]

    def of(name: str, rows: Rows | str, place: str = "data", **more: Any) -> list[str]:
        path = folder / f"{name}.jsonl"
        path.write_text(rows) if isinstance(rows, str) else write_rows(path, rows)
        return small.words(f"{place}.path={path}", **more)

    lines = small.train.read_text().splitlines(keepends=True)
    yield "a path that is not there", small.words("data.path=nowhere.jsonl"), "nowhere.jsonl"
    yield "an empty file", of("empty", ""), "is empty"
    yield "a folder without data", small.words(f"data.path={small.base}"), "format not recognised"
    yield "a broken line", of("badline", "".join(lines[:11]) + '{"question": \n' + "".join(lines[11:])), "badline.jsonl"
    yield "a label that is NaN", of("nan", [train[0] | {"labels": [float("nan"), 1]}, *train[1:]]), "nan.jsonl, row 1"
    yield "NaN in every row", of("nans", [row | {"labels": [float("nan"), 1]} for row in train]), "NaN"
    yield "labels as words", of("words", [row | {"labels": ["good", "bad"]} for row in train]), "words.jsonl, row 1"
    yield "a label of -1", of("minus", [row | {"labels": [-1, 1]} for row in train]), "minus.jsonl, row 1, labels"
    yield "a label too few", of("few", [row | {"labels": [1]} for row in train]), "1 labels for 2 steps"
    yield "a label of 401 digits", of("huge", lines[0].replace("[1,", f"[{_HUGE},")), "huge.jsonl, row 1, labels"
    yield "preferences", of("pairs", [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 3), "format not recognised"
    yield "a file of bytes", of("binary", "\x00\x01\x02\x7f" * 999), "binary.jsonl"
    yield "no step has a label", of("bare", [row | {"labels": [None, None]} for row in train]), "no training chain"
    yield "every label 1", of("same", [row | {"labels": [1, 1]} for row in train]), "every step label of the training"
    yield "every label .5", of("half", [row | {"labels": [0.5, None]} for row in train]), "every step label"
    yield "all meta chains right", of("right", [row | {"correct": True} for row in meta], "meta"), "are right"
    yield "all meta chains wrong", of("wrong", [row | {"correct": False} for row in meta], "meta"), "are wrong"
    yield "one meta chain", of("single", meta[:1], "meta"), "all 1 meta chains"
    shared = [row | {"correct": bool(i % 2)} for i, row in enumerate(train[:10])]
    yield "questions in training and meta set", of("overlap", shared, "meta"), "share 10 questions"
    tests = [row | {"correct": bool(i % 2)} for i, row in enumerate(train[:4])]
    yield "questions in training and test set", of("test1", tests, "test", test__images=small.folder), "training and"
    yield "questions in meta and test set", of("test2", meta[:4], "test", test__images=small.folder), "the meta and the"
    yield "own data and the world's meta set", small.words(meta=None, meta__path=None, meta__images=None), "meta.path"
    yield "the world's data and an own meta set", small.words(data="world", data__path=None, data__images=None), "meta"
    yield "no meta set", small.words(meta__path=None, meta__images=None), "meta.path"
    yield "a batch larger than the training data", small.words("inner.batch_size=25"), "larger than the 24 training"
    yield "a batch larger than the meta set", small.words("outer.batch_size=13"), "larger than the 12 meta"
    yield "a batch larger than the cold start", small.words("cold.batch_size=25"), "larger than the 24 cold-start"
    gone = [row | {"images": ["gone.png"]} for row in train]
    yield "all images missing", of("gone", gone), "set data.images"
    yield "one image missing", of("one_gone", [gone[0], *train[1:]]), "1 of 24 chains"
    yield (
        "images of the meta set missing",
        of("meta_gone", [meta[0] | {"images": ["no"]}, *meta], "meta"),
        "meta.images",
    )
    yield "an image above its folder", of("up", [row | {"images": ["../x.png"]} for row in train]), "up.jsonl, row 1"
    (small.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    yield "an image that is none", of("noimage", [row | {"images": ["broken.png"]} for row in train]), "broken.png"
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(small.train.read_bytes())[:-200])
    yield "a compressed file cut short", small.words(f"data.path={folder / 'cut.jsonl.gz'}"), "cut.jsonl.gz"
    yield from _meta_json(small, folder)


def _meta_json(small: Small, folder: Path) -> Iterator[tuple[str, list[str], str]]:
    """A foreign meta.json whose roots and annotations climb out of the folder."""
    (folder / "outside.jsonl").write_bytes(small.train.read_bytes())
    for name, source in (
        ("an annotation above its folder", {"annotation": "../outside.jsonl", "root": "", "length": 24}),
        ("a root above the image folder", {"annotation": "own.jsonl", "root": "../..", "length": 24}),
        ("an absolute root outside", {"annotation": "own.jsonl", "root": "/etc", "length": 24}),
    ):
        place = folder / name.replace(" ", "_")
        place.mkdir()
        (place / "own.jsonl").write_bytes(small.train.read_bytes())
        (place / "meta.json").write_text(json.dumps({"src": source}))
        yield name, small.words(f"data.path={place / 'meta.json'}"), "meta.json"


def _machine(small: Small, folder: Path) -> Iterator[tuple[str, list[str], str, dict[str, str]]]:
    """Folders and processes."""
    (folder / "file").write_text("")
    taken = folder / "taken"
    taken.mkdir()
    (taken / "results.json").write_text("{}")
    nothing: dict[str, str] = {}
    yield "run_dir below /proc", small.words("run_dir=/proc/foo"), "cannot be written", nothing
    yield "run_dir is a file", small.words(f"run_dir={folder / 'file'}"), "cannot be written", nothing
    yield "run_dir below a file", small.words(f"run_dir={folder / 'file' / 'run'}"), "cannot be written", nothing
    yield "run_dir with too long a name", small.words(f"run_dir={folder / ('x' * 300)}"), "too long", nothing
    yield "run_dir of something else", small.words(f"run_dir={taken}"), "holds results.json of something else", nothing
    yield "resume of a folder that is none", ["resume=nowhere"], "no config.yaml there", nothing
    yield "resume of a folder that is no run", [f"resume={small.base}"], "no config.yaml there", nothing
    for world in ({"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "1"}):
        name = " ".join(f"{key}={value}" for key, value in world.items())
        yield f"one of several: {name}", small.words(f"run_dir={folder / 'many'}"), "start them by torchrun", world
    yield "a model folder that is not there", small.words("model.path=/nope/model"), "/nope/model", nothing
    yield "a hub name without the hub", small.words("model.path=Qwen/Qwen2-VL-2B-Instruct"), "Qwen/Qwen2-VL-2B", nothing


def _commands(small: Small, folder: Path) -> Iterator[tuple[str, str, list[str], str]]:
    """The other commands."""
    unscored, empty = small.train, folder / "nothing.jsonl"
    empty.write_text("")
    data = [f"data.path={small.meta}", f"data.images={small.folder}"]
    yield "score without a PRM", "score", data, "prm is not set"
    yield "score without data", "score", [f"prm={small.base}"], "data.path is not set"
    yield "score into its own input", "score", [f"prm={small.base}", f"out={small.meta}", *data], "is the file that"
    yield "score into /proc", "score", [f"prm={small.base}", "out=/proc/x.jsonl", *data], "/proc"
    yield "score into a file of something else", "score", [f"prm={small.base}", f"out={unscored}", *data], "overwrite"
    yield "score by shard 3/2", "score", [f"prm={small.base}", "shard=3/2", *data], "shard must be i/n"
    yield "score with a table of no kind", "score", [f"prm={small.base}", "table=t.xls", *data], ".csv or .parquet"
    yield "select of a missing file", "select", ["scores=/nope.jsonl"], "scores=/nope.jsonl"
    yield "select without scores", "select", [], "scores is not set"
    yield "evaluate of a missing file", "evaluate", ["scores=/nope.jsonl"], "scores=/nope.jsonl"
    yield "evaluate of an unscored file", "evaluate", [f"scores={unscored}"], "no score for each step"
    yield "evaluate of an empty file", "evaluate", [f"scores={empty}"], "is empty"
    yield "evaluate by a benchmark that is none", "evaluate", ["benchmark=prmbech"], "did you mean prmbench?"
    yield "sample at a temperature of NaN", "sample", ["policy.temperature=nan", *data], "temperature"
    yield "label into its own input", "label", [f"out={small.train}", f"data.path={small.train}"], "is the file that"
    yield "doctor without data", "doctor", [], "data.path is missing"
    yield "doctor of a missing file", "doctor", ["data.path=/nope.jsonl"], "/nope.jsonl"
    yield "doctor of an empty file", "doctor", [f"data.path={empty}"], "is empty"
    yield "report without a run", "report", [], "run_dir is not set"
    yield "report of a folder that is no run", "report", [f"run_dir={small.base}"], "results.json"
    yield "export without a PRM", "export", [], "prm"
    yield "serve without a PRM", "serve", [], "prm"
    yield "serve of a folder that is no PRM", "serve", ["prm=/nope", "port=0"], "/nope"
    yield "clean without a run", "clean", [], "run_dir"
    yield "search without data", "search", [f"prm={small.base}"], "data.path"


def _grave(small: Small, folder: Path) -> Iterator[tuple[str, list[str], str]]:
    """What the doctor finds grave: its status is 1."""
    images = f"data.images={small.folder}"
    for name, expected in (
        ("badline", "rows cannot be read"),
        ("nan", "rows cannot be read"),
        ("gone", "are not there"),
        ("noimage", "cannot be opened"),
    ):
        yield name, ["json=-", f"data.path={folder / f'{name}.jsonl'}", images], expected
    shared = [f"meta.path={folder / 'overlap.jsonl'}", f"meta.images={small.folder}"]
    yield "shared questions", ["json=-", f"data.path={small.train}", images, *shared], "share 10 questions"
    same = write_rows(folder / "all_right.jsonl", [row | {"labels": [1, 1]} for row in small.rows(small.train)] * 3)
    yield "labels all alike", ["json=-", f"data.path={same}", images], "step labels are right"


def try_inputs(small: Small, folder: Path) -> Iterator[Finding]:
    """Every wrong input, each in a process and a folder of its own; nothing may be left in the folder."""
    data = folder / "data"
    data.mkdir(parents=True)
    number = 0

    def tried(part: str, name: str, command: str, words: list[str], expected: str, **more: Any) -> Finding:
        nonlocal number
        number += 1
        grave = more.pop("grave", 2)
        place = folder / f"{number}"
        found = judge(part, name, try_command(command, words, place, **more), expected, grave=grave)
        shutil.rmtree(place)
        return found

    for name, words, expected in _settings(small):
        yield tried("settings", name, "train", words, expected)
    for name, words, expected in _data(small, data):
        yield tried("data", name, "train", words, expected)
    for name, words, expected, environment in _machine(small, data):
        yield tried("folders and processes", name, "train", words, expected, environment=environment)
    for name, command, words, expected in _commands(small, data):
        yield tried("commands", name, command, words, expected)
    for name, words, expected in _grave(small, data):
        yield tried("doctor", name, "doctor", words, expected, grave=1)
