"""Damaged and foreign files: run folders, data that changed, PRM folders, caches, outputs of the stages.

Each is refused in one line, or mended with a warning and a result that is bit for bit the undisturbed one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.small import Small, copy_run, same_result, write_rows
from benchmarks.faults.trial import Finding, judge, try_command

__all__ = ["Damage", "try_caches", "try_changed_data", "try_prms", "try_reports", "try_runs", "try_stages", "two_runs"]

Act = Callable[[Path], object]
_LAST, _BEFORE = "checkpoints/update-00000004", "going on from update-00000003"
_UNDAMAGED = ", seed 0, in "  # what every run says: the fault is passed over, and the result is the undisturbed one


@dataclass(frozen=True)
class Damage:
    """act: done to the folder.  expected: words of what is said.  mended: the run goes on, to the same result."""

    name: str
    act: Act
    expected: str
    mended: bool = False


# -- what is done to files -------------------------------------------------------------------------------------------


def _cut(name: str, share: float = 0.5) -> Act:
    return lambda folder: (folder / name).write_bytes(_read(folder, name)[: int(len(_read(folder, name)) * share)])


def _read(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


def _flip(name: str, place: float = 0.7, count: int = 1) -> Act:
    def act(folder: Path) -> None:
        data = bytearray(_read(folder, name))
        first = int(len(data) * place)
        data[first : first + count] = bytes(byte ^ 0x10 for byte in data[first : first + count])
        (folder / name).write_bytes(data)

    return act


def _put(name: str, content: str | bytes) -> Act:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def _gone(name: str) -> Act:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def _folder_instead(name: str) -> Act:
    def act(folder: Path) -> None:
        _gone(name)(folder)
        (folder / name).mkdir()

    return act


def _file_instead(name: str) -> Act:
    def act(folder: Path) -> None:
        _gone(name)(folder)
        (folder / name).write_text("x")

    return act


def _json(name: str, change: Callable[[Any], Any]) -> Act:
    def act(folder: Path) -> None:
        (folder / name).write_text(json.dumps(change(json.loads(_read(folder, name)))))

    return act


def _config(old: str, new: str, *, sealed: bool) -> Act:
    """config.yaml with one text in place of another. sealed: with the hash that a run would write, as a forger does."""

    def act(folder: Path) -> None:
        text, mark, _ = (folder / "config.yaml").read_text().rpartition("# hash of what stands above: ")
        assert old in text, old
        text = text.replace(old, new, 1)
        (folder / "config.yaml").write_text(text + mark + (_seal(text) if sealed else "0" * 32) + "\n")

    return act


def _seal(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _Bad:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch pickle_was_run",)


_PICKLE = pickle.dumps(_Bad())
_DEEP = "[" * 200_000 + "]" * 200_000
_ANCHORS = "a0: &a0 [x, x]\n" + "".join(f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}]\n" for k in range(9))


def _position(state: Any) -> Any:
    text = json.dumps(state["content"]["tree"])
    assert '["position", ' in text
    state["content"]["tree"] = json.loads(text.replace('["position", ', '["position", 1', 1))
    return state


def _format_one(state: Any) -> Any:
    return {"format": 1, "update": 4, "tree": state["content"]["tree"]}


# -- run folders -----------------------------------------------------------------------------------------------------


def _checkpoints() -> Iterator[Damage]:
    tensors, state = f"{_LAST}/state.safetensors", f"{_LAST}/state.json"
    yield Damage("tensors cut in half", _cut(tensors), _BEFORE, True)
    yield Damage("tensors without their last byte", _cut(tensors, 0.99999), _BEFORE, True)
    yield Damage("one bit of the tensors", _flip(tensors), _BEFORE, True)
    yield Damage("one bit of the tensors' header", _flip(tensors, 0.0001), _BEFORE, True)
    yield Damage("4,096 bytes of the tensors", _flip(tensors, 0.5, 4096), _BEFORE, True)
    yield Damage("tensors empty", _put(tensors, b""), _BEFORE, True)
    yield Damage("tensors missing", _gone(tensors), _BEFORE, True)
    yield Damage("a folder in place of the tensors", _folder_instead(tensors), _BEFORE, True)
    yield Damage("a pickle in place of the tensors", _put(tensors, _PICKLE), _BEFORE, True)
    yield Damage("state.json cut in half", _cut(state), _BEFORE, True)
    yield Damage("state.json empty", _put(state, ""), _BEFORE, True)
    for content in ("[]", "null", '{"tree": 3}', '{"format": "2"}', '{"format": 2}', '{"format": 2, "content": []}'):
        yield Damage(f"state.json is {content}", _put(state, content), _BEFORE, True)
    yield Damage("state.json 200,000 levels deep", _put(state, _DEEP), _BEFORE, True)
    yield Damage("state.json of bytes", _put(state, b"\xff\xfe\x00" * 99), _BEFORE, True)
    yield Damage("state.json missing", _gone(state), _BEFORE, True)
    yield Damage("a folder in place of state.json", _folder_instead(state), _BEFORE, True)
    yield Damage("a sampler's position edited", _json(state, _position), _BEFORE, True)
    yield Damage("of the format of an earlier version", _json(state, _format_one), "checkpoint format 1, this version")
    yield Damage("the newest folder empty", lambda f: (_gone(_LAST)(f), (f / _LAST).mkdir()), _BEFORE, True)
    yield Damage("the newest missing", _gone(_LAST), "going on at update 3", True)
    yield Damage("the newest replaced by a file", _file_instead(_LAST), "going on at update 3", True)
    yield Damage("all missing", _gone("checkpoints"), "holds no checkpoint: starting at update 0 again", True)
    yield Damage("a file in place of all", _file_instead("checkpoints"), "checkpoints")
    yield Damage("every one cut in half", _every_cut, "no whole checkpoint is left")
    yield Damage("a stray file update-00000009", _put("checkpoints/update-00000009", "x"), _UNDAMAGED, True)
    yield Damage("a stray folder update-zzz", lambda f: (f / "checkpoints/update-zzz").mkdir(), _UNDAMAGED, True)
    yield Damage("a half-written one", lambda f: _half(f), _UNDAMAGED, True)
    yield Damage("a dangling link", lambda f: (f / "checkpoints/update-00000008").symlink_to("no"), _UNDAMAGED, True)


def _every_cut(folder: Path) -> None:
    for file in folder.glob("checkpoints/*/state.safetensors"):
        _cut(str(file.relative_to(folder)))(folder)


def _half(folder: Path) -> None:
    part = folder / "checkpoints/.update-00000005.part"
    part.mkdir()
    (part / "state.safetensors").write_bytes(b"x" * 999)


def _configs() -> Iterator[Damage]:
    name, lr = "config.yaml", "    lr: 0.0001"
    yield Damage("config.yaml empty", _put(name, ""), "cannot be read as a run's settings")
    yield Damage("config.yaml a list", _put(name, "- a\n- b\n"), "it is no mapping of settings")
    yield Damage("config.yaml broken", _put(name, "a: [1, 2\nb: }"), "cannot be read as a run's settings")
    yield Damage("config.yaml of bytes", _put(name, b"\x00\xff\xfe" * 99), "cannot be read as a run's settings")
    yield Damage("config.yaml with a python tag", _put(name, "a: !!python/object/apply:os.system ['x']\n"), "cannot be")
    yield Damage("config.yaml with anchors", _put(name, _ANCHORS), "YAML aliases")
    yield Damage("config.yaml 100,000 levels deep", _put(name, "a: " + "[" * 100_000), "cannot be read as a run's")
    yield Damage("config.yaml above 1 MB", _put(name, "a: " + "x" * 2**21), "config.yaml")
    yield Damage("config.yaml missing", _gone(name), "no config.yaml there")
    yield Damage("a folder in place of config.yaml", _folder_instead(name), "no config.yaml there")
    yield Damage("config.yaml cut in half", _cut(name), "config.yaml")
    yield Damage("a rate edited by hand", _config(lr, "    lr: 0.05", sealed=False), "optimizer.lr was 0.0001, there")
    yield Damage("a seed edited by hand", _config("seed: 0", "seed: 3", sealed=False), "seed was 0, there is 3")
    yield Damage("a seed edited, and sealed anew", _config("seed: 0", "seed: 3", sealed=True), "seed was 0, now 3")
    secret = "${oc.env:HOME}"
    for sealed in (False, True):
        act = _config("description: ", f"description: '{secret}' # ", sealed=sealed)
        word = "sealed" if sealed else "foreign"
        yield Damage(f"{secret} in a {word} config.yaml", act, "would be replaced by something else")
    own = _config("weigher:\n", "weigher:\n  target: os.system\n", sealed=True)
    yield Damage("an object to build in config.yaml", own, "of an earlier version")
    module = _config("  kind: instance_net", "  kind: 'os:system'", sealed=True)
    yield Damage("a module to import in config.yaml", module, "allow=")


def _metrics() -> Iterator[Damage]:
    name = "metrics.jsonl"
    warning = "has "  # … rows of the 4 it had
    yield Damage("metrics.jsonl of bytes", _put(name, b"\xff\x00" * 99), warning)
    yield Damage("metrics.jsonl with a row of no update", _append(name, '{"phase": "cold"}'), "1 lines are not what")
    yield Damage("metrics.jsonl with a row that is a list", _append(name, "[1, 2]"), "1 lines are not what")
    yield Damage("half of metrics.jsonl", _cut(name), "rows of the 4 it had")
    yield Damage("metrics.jsonl missing", _gone(name), "0 rows of the 4 it had")
    yield Damage("a folder in place of metrics.jsonl", _folder_instead(name), "metrics.jsonl")


def _append(name: str, line: str) -> Act:
    return lambda folder: (folder / name).write_bytes(line.encode() + b"\n" + _read(folder, name))


def try_runs(small: Small, folder: Path) -> Iterator[Finding]:
    """Every damage of a stopped run, then `resume`."""
    whole, stopped = two_runs(small, folder)
    number = 0
    for part, damages in (
        ("damaged checkpoints", _checkpoints()),
        ("damaged or foreign settings", _configs()),
        ("damaged metrics", _metrics()),
    ):
        for damage in damages:
            number += 1
            run = copy_run(stopped, folder / f"run{number}")
            damage.act(run)
            outcome = try_command("train", [f"resume={run}"], folder)
            goes_on = damage.mended or (part.endswith("metrics") and outcome.code == 0)
            without = ("metrics.jsonl",) if part.endswith("metrics") else ()
            wrong = same_result(whole, run, without) if goes_on and outcome.code == 0 else ""
            if list(folder.rglob("pickle_was_run")):
                wrong = "the pickle was executed"
            yield judge(part, damage.name, outcome, damage.expected, goes_on=goes_on, wrong=wrong)
            shutil.rmtree(run)


# -- data that changed -----------------------------------------------------------------------------------------------


def try_changed_data(small: Small, folder: Path) -> Iterator[Finding]:
    """Data or model that are not those that the run was trained on."""
    stopped = two_runs(small, folder)[1]
    train, meta = small.train.read_bytes(), small.meta.read_bytes()
    rows, judged = small.rows(small.train), small.rows(small.meta)
    image = small.folder / "3.png"
    pixels, stamp = image.read_bytes(), image.stat().st_mtime_ns
    weights = small.base / "model.safetensors"
    held = weights.read_bytes()
    template = small.base / "chat_template.jinja"
    words = template.read_bytes()
    turned = [row | {"labels": [1 - label for label in row["labels"]]} for row in rows]  # type: ignore[attr-defined]
    part = "data that changed"
    changes: list[tuple[str, Callable[[], object], str]] = [
        ("labels turned", lambda: write_rows(small.train, turned), "labels"),
        ("rows in another order", lambda: write_rows(small.train, rows[::-1]), "training chains: keys"),
        ("questions rewritten", lambda: write_rows(small.train, [row | {"question": "?"} for row in rows]), "texts"),
        ("a row less", lambda: write_rows(small.train, rows[:-1]), "number"),
        ("a row more", lambda: write_rows(small.train, [*rows, rows[0]]), "number"),
        ("an outcome of the meta set", lambda: write_rows(small.meta, _turned(judged)), "meta chains: labels"),
        ("another image of the same name", lambda: image.write_bytes(pixels + b" "), "images"),
        ("an image missing", image.unlink, "3.png"),
        ("the data missing", small.train.unlink, "train.jsonl"),
        ("the chat template", lambda: template.write_bytes(words + b" "), "tokenizer differ"),
        ("the model missing", weights.unlink, "model.safetensors"),
    ]
    for number, (name, change, expected) in enumerate(changes):
        run = copy_run(stopped, folder / f"changed{number}")
        change()
        outcome = try_command("train", [f"resume={run}"], folder)
        small.train.write_bytes(train)
        small.meta.write_bytes(meta)
        image.write_bytes(pixels)
        os.utime(image, ns=(stamp, stamp))  # the times are part of what is compared
        weights.write_bytes(held)
        template.write_bytes(words)
        yield judge(part, name, outcome, expected)
        shutil.rmtree(run)

    lora = folder / "lora"
    outcome = try_command("train", small.words(f"run_dir={lora}", "model.lora.rank=2", "stop_at=3"), folder)
    assert outcome.code == 130, outcome.err
    data = bytearray(held)
    data[-1000:-500] = bytes(500)
    weights.write_bytes(data)
    outcome = try_command("train", [f"resume={lora}"], folder)
    weights.write_bytes(held)
    yield judge(part, "another base under the adapters", outcome, "frozen parameters differ")


def _turned(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [rows[0] | {"correct": not rows[0]["correct"]}, *rows[1:]]


# -- PRM folders, reports, stages ------------------------------------------------------------------------------------


def _prms() -> Iterator[Damage]:
    yield Damage("prm.json a list", _put("prm.json", "[1]"), "prm.json is damaged")
    yield Damage("prm.json cut", _cut("prm.json"), "prm.json is damaged")
    yield Damage("prm.json 200,000 levels deep", _put("prm.json", _DEEP), "prm.json is damaged")
    yield Damage("prm.json with an unknown name", _json("prm.json", lambda s: s | {"hed": 1}), "prm.json is damaged")
    yield Damage("prm.json with a head that is none", _json("prm.json", lambda s: s | {"head": "hed"}), "hed")
    yield Damage("prm.json with another kind of prompt", _json("prm.json", lambda s: s | {"prompt": [1]}), "prm.json")
    yield Damage("prm.json with a prompt that is none", _json("prm.json", _with_prompt), "no_such")
    yield Damage("config.json missing", _gone("config.json"), "cannot load a PRM from the folder")
    yield Damage("config.json empty", _put("config.json", ""), "cannot load a PRM from the folder")
    yield Damage("config.json a list", _put("config.json", "[]"), "cannot load a PRM from the folder")
    yield Damage("config.json of a model that is none", _json("config.json", _other_model), "cannot load a PRM")
    yield Damage("config.json with code to run", _json("config.json", _remote_code), "cannot load a PRM")
    yield Damage("config.json with another width", _json("config.json", _other_width), "cannot load a PRM")
    yield Damage("tensors cut in half", _cut("model.safetensors"), "cannot load a PRM from the folder")
    yield Damage("tensors empty", _put("model.safetensors", b""), "cannot load a PRM from the folder")
    yield Damage("tensors missing", _gone("model.safetensors"), "cannot load a PRM from the folder")
    yield Damage("a folder in place of the tensors", _folder_instead("model.safetensors"), "cannot load a PRM")
    yield Damage("a pickle in place of the tensors", _pickled, "cannot load a PRM from the folder")
    yield Damage("a tensor less", _tensors(lambda held: held.pop(sorted(held)[3])), "its files lack 1 tensors")
    yield Damage("a tensor of NaN", _tensors(lambda held: held[sorted(held)[3]].fill_(float("nan"))), "not finite")
    yield Damage("a tensor of another shape", _tensors(_reshaped), "cannot load a PRM from the folder")
    yield Damage("one bit of the tensors", _flip("model.safetensors"), "its checksum differs")
    yield Damage("tokenizer.json cut", _cut("tokenizer.json"), "cannot load a PRM from the folder")
    yield Damage("tokenizer.json missing", _gone("tokenizer.json"), "cannot load a PRM from the folder")
    yield Damage("a chat template that attacks", _put("chat_template.jinja", "{{ ''.__class__.__mro__ }}"), "template")
    yield Damage("an empty folder", _emptied, "cannot load a PRM from the folder")


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        _gone(path.name)(folder)


def _with_prompt(stored: dict[str, Any]) -> dict[str, Any]:
    return stored | {"prompt": stored["prompt"] | {"no_such": 1}}


def _other_model(stored: dict[str, Any]) -> dict[str, Any]:
    return stored | {"model_type": "no_such_model"}


def _remote_code(stored: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}


def _other_width(stored: dict[str, Any]) -> dict[str, Any]:
    inner = stored["text_config"]
    return stored | {"text_config": inner | {"hidden_size": inner["hidden_size"] * 2}}


def _pickled(folder: Path) -> None:
    _gone("model.safetensors")(folder)
    (folder / "pytorch_model.bin").write_bytes(_PICKLE)


def _tensors(change: Callable[[Any], object]) -> Act:
    def act(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", {"format": "pt"})
        _json("prm.json", lambda stored: stored | {"checksums": {}})(folder)  # as who changes them knows how to

    return act


def _reshaped(held: Any) -> None:
    name = next(name for name in sorted(held) if held[name].ndim == 2)
    held[name] = held[name][:-1].contiguous()


def try_prms(small: Small, folder: Path) -> Iterator[Finding]:
    """Every damage of a PRM folder, then `score`."""
    whole = two_runs(small, folder)[0]
    data = [f"data.path={small.meta}", f"data.images={small.folder}", "device=cpu", "batch_size=4"]
    for number, damage in enumerate(_prms()):
        prm = copy_run(whole / "prm", folder / f"prm{number}")
        damage.act(prm)
        outcome = try_command("score", [f"prm={prm}", f"out={folder / f'scores{number}.jsonl'}", *data], folder)
        wrong = "the pickle was executed" if list(folder.rglob("pickle_was_run")) else ""
        yield judge("damaged PRM folders", damage.name, outcome, damage.expected, wrong=wrong)
        shutil.rmtree(prm)


def _reports() -> Iterator[Damage]:
    script = "<script>document.title='run'</script>"
    yield Damage("results.json a list", _put("results.json", "[]"), "results.json")
    yield Damage("results.json cut", _cut("results.json"), "results.json")
    yield Damage("results.json missing", _gone("results.json"), "results.json")
    yield Damage("weights.parquet cut", _cut("weights.parquet"), "weights.parquet")
    yield Damage("weights.parquet of text", _put("weights.parquet", "no"), "weights.parquet")
    for name in ("seed", "experiment"):
        yield Damage(f"a script as {name}", _json("results.json", lambda r, n=name: r | {n: script}), "report:", True)


def try_reports(small: Small, folder: Path) -> Iterator[Finding]:
    """Every damage of a finished run, then `report`."""
    whole = two_runs(small, folder)[0]
    for number, damage in enumerate(_reports()):
        run = copy_run(whole, folder / f"report{number}")
        damage.act(run)
        outcome = try_command("report", [f"run_dir={run}"], folder)
        page = run / "report.html"
        ran = damage.mended and page.exists() and "<script>document" in page.read_text()
        wrong = "the script stands in the page" if ran else ""
        refused = outcome.code != 0
        yield judge(
            "damaged results, then `report`", damage.name, outcome,
            "error" if refused and damage.mended else damage.expected, goes_on=damage.mended and not refused,
            wrong=wrong,
        )  # fmt: skip
        shutil.rmtree(run)


def try_stages(small: Small, folder: Path) -> Iterator[Finding]:
    """What `score` goes on with, and what `select` and `evaluate` read."""
    whole = two_runs(small, folder)[0]
    part, out = "damaged outputs of the stages", folder / "stage.jsonl"
    words = [f"prm={whole / 'prm'}", f"data.path={small.meta}", f"data.images={small.folder}", "device=cpu"]
    words += ["batch_size=1", f"out={out}"]
    assert try_command("score", words, folder).code == 0
    side, right = Path(f"{out}.run.json"), out.read_bytes()
    seal = side.read_bytes()
    for name, content, about, expected, mended in (
        ("a row cut in half", right[: len(right) * 9 // 10], seal, "bytes behind the last whole row", True),
        ("bytes behind the last row", right[: len(right) // 3] + b"\xff\x00junk", seal, "bytes behind", True),
        ("empty", b"", seal, "score", True),
        ("its settings missing", right, None, "was not begun by this command", False),
        ("its settings damaged", right, b"[]", "is damaged, so nothing says", False),
        (
            "its settings of another run",
            right,
            seal.replace(b'"batch_size": 1', b'"batch_size": 2'),
            "was 2, now 1",
            False,
        ),
    ):
        out.write_bytes(content)
        side.unlink(missing_ok=True)
        if about is not None:
            side.write_bytes(about)
        outcome = try_command("score", words, folder)
        wrong = "the rows are others" if mended and outcome.code == 0 and out.read_bytes() != right else ""
        yield judge(part, f"scores: {name}", outcome, expected, goes_on=mended, wrong=wrong)
    lines = right.decode().splitlines(keepends=True)
    for name, content, expected in (
        ("a score that is NaN", "".join(lines).replace("[0.", "[NaN, 0.", 1), "NaN"),
        ("a row without scores", "".join([json.dumps(json.loads(lines[0]) | {"extra": {}}) + "\n", *lines]), "row 1"),
        ("a row with a score too few", _one_less(lines), "row 1"),
        ("a row cut", "".join(lines)[:-40], "row 12"),
        ("a pickle", _PICKLE.decode("latin-1"), "broken.jsonl"),
    ):
        broken = folder / "broken.jsonl"
        broken.write_text(content)
        for command in ("select", "evaluate"):
            words = [f"scores={broken}", f"out={folder / f'{command}.json'}"]
            yield judge(part, f"{command}: {name}", try_command(command, words, folder), expected)


def _one_less(lines: list[str]) -> str:
    first = json.loads(lines[0])
    first["extra"]["step_scores"].pop()
    return "".join([json.dumps(first) + "\n", *lines[1:]])


# -- caches ----------------------------------------------------------------------------------------------------------


def try_caches(small: Small, folder: Path) -> Iterator[Finding]:
    """The index of a file above 32 MB, the unpacked copy of a compressed one, the features of a frozen tower."""
    part, cache = "damaged caches", folder / "cache"
    folder.mkdir(parents=True)
    rows = small.rows(small.train)
    heavy = {"note": "x" * 1_500_000}
    long = [row | {"extra": heavy} for row in rows]
    big = write_rows(folder / "big.jsonl", long)
    packed = folder / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(small.train.read_bytes()))
    for kind, path, pattern, expected in (
        ("index", big, "index/*.npz", "is damaged"),
        ("unpacked copy", packed, "unpacked/*", "is damaged and made anew"),
    ):
        words = small.words(f"data.path={path}", "show_prompts=1", "cold.updates=0")
        environment = {"DREAMPRM_CACHE": str(cache / kind)}
        first = try_command("train", words, folder, environment=environment)
        (file,) = (cache / kind).glob(pattern)
        sound = file.read_bytes()
        for name, act in (
            ("cut in half", _cut(file.name)),
            ("one bit", _flip(file.name, 0.5)),
            ("empty", _put(file.name, b"")),
            ("other bytes", _put(file.name, b"junk")),
            ("a pickle", _put(file.name, _PICKLE)),
        ):
            file.write_bytes(sound)
            act(file.parent)
            outcome = try_command("train", words, folder, environment=environment)
            wrong = "" if outcome.out == first.out else "other prompts than before"
            yield judge(part, f"{kind}: {name}", outcome, expected, goes_on=True, wrong=wrong)
        environment = {"DREAMPRM_CACHE": "/proc/nocache"}
        outcome = try_command("train", words, folder, environment=environment)
        yield judge(part, f"{kind}: no folder can be made", outcome, "cannot be written", goes_on=True)
        big.unlink() if path is big else None
    yield from _try_features(small, folder)


def _try_features(small: Small, folder: Path) -> Iterator[Finding]:
    kept, runs = folder / "features", [folder / f"cached{number}" for number in range(5)]
    words = small.words("model.vision=cached", f"model.features={kept}")
    assert try_command("train", [*words, f"run_dir={runs[0]}"], folder).code == 0
    files = [path for path in sorted(kept.rglob("*")) if path.is_file()]
    sound = {path: path.read_bytes() for path in files}
    for run, (name, act) in zip(
        runs[1:],
        (
            ("cut in half", lambda path: path.write_bytes(sound[path][: len(sound[path]) // 2])),
            ("one bit", lambda path: _flip(path.name)(path.parent)),
            ("empty", lambda path: path.write_bytes(b"")),
            ("other bytes", lambda path: path.write_bytes(b"junk")),
        ),
        strict=True,
    ):
        for path, content in sound.items():
            path.write_bytes(content)
            act(path)
        outcome = try_command("train", [*words, f"run_dir={run}"], folder)
        wrong = same_result(runs[0], run) if outcome.code == 0 else ""
        yield judge("damaged caches", f"features: {name}", outcome, "features", goes_on=outcome.code == 0, wrong=wrong)


def two_runs(small: Small, folder: Path) -> tuple[Path, Path]:
    """An undisturbed run, and one that was stopped at update 4 of 5."""
    whole, stopped = folder / "whole", folder / "stopped"
    for run, more in ((whole, []), (stopped, ["stop_at=4"])):
        outcome = try_command("train", small.words(f"run_dir={run}", *more), folder)
        assert outcome.code == (130 if more else 0), outcome.err
    return whole, stopped
