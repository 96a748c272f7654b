"""Nested state survives safetensors and JSON bit for bit."""

from __future__ import annotations

import json

import pytest
import torch

from dreamprm.run_files.checkpoint import flatten, latest_checkpoint, load_checkpoint, save_checkpoint, unflatten


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
    from dreamprm.errors import UserError

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
