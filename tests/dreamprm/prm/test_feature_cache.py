"""The store of features: computed once, the most recently used in memory, the rest in a folder or computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamprm.prm.feature_cache import FeatureStore, content_name

SIZE = 4 * 8
"""Bytes of one feature."""


class Maker:
    """Eight numbers for each name; says which it has made."""

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.made = store, list[str]()

    def take(self, names: str) -> list[Tensor]:
        def compute(places: list[int]) -> list[Tensor]:
            self.made += [names[place] for place in places]
            return [torch.full((8,), float(ord(names[place]))) for place in places]

        found = self.store.take(list(names), compute)
        assert [value.tolist() for value in found] == [[float(ord(name))] * 8 for name in names]
        return found


def test_each_is_made_once() -> None:
    maker = Maker(FeatureStore())
    maker.take("abba")
    maker.take("cab")
    assert maker.made == ["a", "b", "c"]
    assert maker.store.num_bytes == 3 * SIZE


def test_the_least_recently_used_goes_first() -> None:
    maker = Maker(FeatureStore(limit=2 * SIZE))
    maker.take("ab")
    maker.take("a")
    maker.take("c")
    assert list(maker.store.memory) == ["a", "c"]
    maker.take("abcde")  # more than fits at once
    assert maker.store.num_bytes == 2 * SIZE
    assert "".join(maker.made) == "abcbde"


def test_what_memory_cannot_hold_lies_in_the_folder(tmp_path: Path) -> None:
    maker = Maker(FeatureStore(tmp_path, limit=2 * SIZE))
    maker.take("abcde")
    maker.take("abcde")
    assert maker.store.num_bytes == 2 * SIZE
    maker.store.flush()
    maker.store.flush()
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    again = Maker(FeatureStore(tmp_path, limit=0))
    again.take("edcba")
    assert maker.made == ["a", "b", "c", "d", "e"]
    assert not again.made
    assert not list(tmp_path.glob("*.part"))


def test_a_name_stands_for_every_bit_and_shape() -> None:
    value = torch.arange(6.0)
    names = {
        content_name(other) for other in (value, value.reshape(2, 3), value.flip(0), value.bfloat16(), -0.0 * value)
    }
    assert len(names) == 5
    assert content_name(value, note="x") != content_name(value)
    assert content_name(value.reshape(2, 3).T.contiguous().T) == content_name(value.reshape(2, 3))


@pytest.mark.parametrize("place", [0.02, 0.9])
def test_what_is_damaged_on_the_disk_is_made_anew(
    tmp_path: Path, place: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A bit of the header, and one of a feature's values, which would else go into every score."""
    store = FeatureStore(tmp_path)
    value = torch.linspace(0, 1, 64)
    store.take(["a"], lambda missing: [value])
    store.flush()
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 4
    file.write_bytes(data)
    (found,) = FeatureStore(tmp_path).take(["a"], lambda missing: [value])
    assert torch.equal(found, value)
    assert "damaged" in caplog.text
