"""Nested state survives safetensors and JSON bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch

from dreamprm.errors import UserError
from dreamprm.run_files.checkpoint import (
    flatten,
    latest_checkpoint,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    unflatten,
)


def _same(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(two) and len(one) == len(two) and all(map(_same, one, two))  # type: ignore[arg-type]
    return type(one) is type(two) and one == two


def _tree() -> dict[str, object]:
    shared = torch.randn(3, 2)
    return {
        "numbers": [1, 0.1, True, None, "text", (1, 2.5)],
        "state": {0: {"step": torch.tensor(3.0), "moment": shared.T}, 7: {}},
        "shared": [shared, shared],
        "kinds": [torch.arange(3, dtype=torch.uint8), torch.ones(2, dtype=torch.bfloat16), torch.empty(0)],
    }


def test_a_tree_comes_back_as_it_was() -> None:
    tree = _tree()
    tensors, skeleton = flatten(tree)
    assert _same(tree, unflatten(tensors, json.loads(json.dumps(skeleton))))
    assert sum(tensor.shape == (3, 2) for tensor in tensors.values()) == 1, "shared memory is kept once"


def test_the_state_of_every_optimizer_comes_back() -> None:
    for make in (torch.optim.AdamW, torch.optim.SGD):
        model = torch.nn.Linear(3, 2)
        optimizer = make(model.parameters(), lr=0.1)
        for _ in range(2):
            model(torch.randn(4, 3)).square().sum().backward()
            optimizer.step()
        tensors, skeleton = flatten(optimizer.state_dict())
        assert _same(optimizer.state_dict(), unflatten(tensors, json.loads(json.dumps(skeleton))))


def test_what_cannot_be_held_is_named() -> None:
    with pytest.raises(TypeError, match=r"/a/b: a checkpoint cannot hold a set"):
        flatten({"a": {"b": {1}}})


def test_the_last_checkpoints_are_kept_and_read(tmp_path) -> None:
    for update in (1, 2, 30):
        save_checkpoint(tmp_path, update, {"tree": _tree(), "at": update}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["update-00000002", "update-00000030"]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    update, tree = load_checkpoint(latest)
    assert (update, tree["at"]) == (30, 30)


def test_a_damaged_checkpoint_says_what_to_do(tmp_path) -> None:
    path = save_checkpoint(tmp_path, 1, {"a": torch.ones(4)}, keep=1)
    data = (path / "state.safetensors").read_bytes()
    (path / "state.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="delete this folder"):
        load_checkpoint(path)


def test_a_crash_while_writing_leaves_the_one_before(tmp_path, monkeypatch) -> None:
    save_checkpoint(tmp_path, 1, {"a": 1}, keep=1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("dreamprm.run_files.checkpoint.save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, 2, {"a": 2}, keep=1)
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert load_checkpoint(latest) == (1, {"a": 1})


def test_a_file_in_a_checkpoints_place_gives_way(tmp_path) -> None:
    (tmp_path / "update-00000002").write_text("x")
    save_checkpoint(tmp_path, 2, _tree(), keep=2)
    assert load_checkpoint(tmp_path / "update-00000002")[0] == 2


def test_another_format_is_refused(tmp_path) -> None:
    path = save_checkpoint(tmp_path, 4, {"a": torch.ones(4)}, keep=1)
    head = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({"format": 1, "update": 4, "tree": head["content"]["tree"]}))
    with pytest.raises(UserError, match="checkpoint format 1, this version reads 2 only: finish the run with"):
        load_latest(tmp_path)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_one_flipped_bit_falls_back_and_says_so(tmp_path, capsys, name: str) -> None:
    for update in (1, 2):
        path = save_checkpoint(tmp_path, update, {"a": torch.full((64,), float(update)), "at": 7}, keep=2)
    data = bytearray((path / name).read_bytes())
    # In the last tensor's values, or in a number: still a file that loads.
    place = len(data) - 5 if name == "state.safetensors" else data.rindex(b"7")
    data[place] ^= 1
    (path / name).write_bytes(data)
    found = load_latest(tmp_path)
    assert found is not None
    assert (found.update, found.tree["at"]) == (1, 7)
    said = capsys.readouterr().out
    assert f"warning: {path}: cannot be read as a checkpoint ({name} is not what was written: its hash differs)" in said
    assert "going on from update-00000001, the one before" in said


def test_where_all_are_damaged_it_is_an_error(tmp_path) -> None:
    for update in (1, 2):
        (save_checkpoint(tmp_path, update, {"a": 1}, keep=2) / "state.json").write_text("{}")
    with pytest.raises(UserError, match="no whole checkpoint is left"):
        load_latest(tmp_path)


def test_a_kill_in_the_middle_of_a_write_leaves_a_whole_one(tmp_path) -> None:
    """Another process writes one checkpoint after the other; it is killed as soon as one is half there."""
    script = (
        "import itertools, pathlib, sys, torch\n"
        "from dreamprm.run_files.checkpoint import save_checkpoint\n"
        "for update in itertools.count(1):\n"
        "    tree = {'update': update, 'a': torch.full((2_000_000,), float(update))}\n"
        "    save_checkpoint(pathlib.Path(sys.argv[1]), update, tree, keep=1)\n"
    )
    inside = 0
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as writer:
            while not any(tmp_path.glob("update-*")) or not any(tmp_path.glob(".update-*.part/state.safetensors")):
                assert writer.poll() is None
                time.sleep(0.0005)
            writer.kill()
        inside += any(tmp_path.glob(".update-*.part"))
        found = load_latest(tmp_path)
        assert found is not None
        assert found.update == found.tree["update"]
        assert torch.equal(found.tree["a"], torch.full((2_000_000,), float(found.update)))
    assert inside, "a kill has met a half-written one"
    save_checkpoint(tmp_path, 10**6, {"a": 1}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["update-01000000"], "what was half written is taken away"
