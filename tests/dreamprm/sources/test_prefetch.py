"""Chains encoded ahead are those that would be encoded when asked for, in every order in which a run asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from dreamprm.config import TrainConfig
from dreamprm.data.record import Record, RecordError
from dreamprm.metrics import read_metrics
from dreamprm.phases.bilevel_phase import BilevelPhase
from dreamprm.phases.phase import Made
from dreamprm.prm.collate import Collator
from dreamprm.run_files.checkpoint import latest_checkpoint
from dreamprm.run_files.folder import resumed_settings
from dreamprm.sources.prefetch import Prefetch
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


@pytest.fixture
def records(make_record: Any, make_image: Any) -> list[Record]:
    image = make_image(64, 32)
    return [make_record(f"r{row}", ("one", f"so {row}"), images=(image,)) for row in range(8)]


@pytest.fixture
def encoded_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(key, thread) of every chain that a processor has read."""
    found: list[tuple[str, str]] = []
    real = Collator._encode

    def seen(collate: Collator, record: Record) -> Any:
        found.append((record.key, threading.current_thread().name))
        return real(collate, record)

    monkeypatch.setattr(Collator, "_encode", seen)
    return found


def _same(one: Any, two: Any) -> bool:
    mine, other = {**one.sequences, **one.stacks}, {**two.sequences, **two.stacks}
    return one.positions == two.positions and all(torch.equal(mine[name], other[name]) for name in mine | other)


def test_what_was_expected_is_encoded_once_and_elsewhere(
    tiny_processor: Any, records: list[Record], encoded_in: list[tuple[str, str]]
) -> None:
    collate, ahead = Collator(tiny_processor, cache=8), Prefetch()
    ahead.expect(collate, records, [3, 1, 2])
    ahead.expect(collate, records, [1, 5])  # one of them is expected already
    for row in (3, 1, 2, 5):
        record, encoded = ahead.take(collate, records, row)
        assert record is records[row]
        assert _same(encoded, Collator(tiny_processor).encode(record))
    ahead.close()
    elsewhere = [key for key, thread in encoded_in if thread.startswith("chains")]
    assert elsewhere == ["r3", "r1", "r2", "r5"]
    encoded_in.clear()
    ahead.expect(collate, records, [3, 5])
    assert _same(ahead.take(collate, records, 3)[1], collate.encode(records[3]))
    ahead.close()
    assert not encoded_in, "the cache has them"


def test_a_run_that_turns_elsewhere_gets_what_it_asks_for(tiny_processor: Any, records: list[Record]) -> None:
    collate, ahead, others = Collator(tiny_processor), Prefetch(), list(reversed(records))
    ahead.expect(collate, records, [0, 1, 2])
    assert ahead.take(collate, records, 2)[0].key == "r2", "not in the order that was said"
    assert ahead.take(collate, others, 0)[0].key == "r7", "another data set, which nobody had spoken of"
    ahead.forget()
    assert ahead.take(collate, records, 0)[0].key == "r0"
    ahead.close()
    assert ahead.take(collate, records, 1)[0].key == "r1", "still of use after its thread has ended"


def test_an_error_is_raised_where_the_chain_is_taken(tiny_processor: Any, records: list[Record]) -> None:
    collate, ahead = Collator(tiny_processor, max_length=5), Prefetch()
    ahead.expect(collate, records, [0])
    with pytest.raises(RecordError, match=r"record 'r0'.*max_length allows 5"):
        ahead.take(collate, records, 0)
    ahead.close()


def _state(folder: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(folder / "checkpoints")
    assert path is not None
    return load_file(path / "state.safetensors")


def _assert_same_run(one: Path, two: Path) -> None:
    first, second = _state(one), _state(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert read_metrics(one / "metrics.jsonl") == read_metrics(two / "metrics.jsonl")


def test_trust_is_the_same_to_the_last_bit(tiny_settings: Settings) -> None:
    words = ("model.question=null", "weigher.passes=1", "weigher.judge_updates=2", "evaluate.num_questions=1")
    found = [
        train(tiny_settings(*words, f"prefetch={given}", run=f"trust{given}", experiment="trust"))
        for given in ("true", "false")
    ]
    assert found[0] is not None
    assert found[1] is not None
    _assert_same_run(found[0], found[1])


def test_the_same_run_to_the_last_bit(tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what is begun ahead is in a checkpoint, and no thread is left by a stop.

    Micro-batches, outer updates now and then, the meta set trained on from the same sampler too, nothing cached.
    """
    words = ("inner.accumulate=2", "outer.every=2", "inner.meta_weight=0.1", "inner.meta_batch_size=3", "model.cache=0")
    words += ("inner.updates=4", "evaluate.num_questions=1")
    plain = train(tiny_settings(*words, "prefetch=false", run="plain"))
    settings = tiny_settings(*words, "stop_at=4", run="ahead")
    expected: list[int] = []
    real = BilevelPhase.update

    def counted(phase: BilevelPhase) -> Made:
        made = real(phase)
        expected.append(len(phase.run.ahead._begun))
        return made

    monkeypatch.setattr(BilevelPhase, "update", counted)
    others = set(threading.enumerate())  # of runs that other tests have begun and not ended
    assert train(settings) is None
    assert expected[-1] > 0, "chains of the update after the stop are under way"
    assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("chains")]
    folder = Path(str(settings.run_dir))
    composed = OmegaConf.create({"resume": str(folder), "stop_at": None})
    assert train(resumed_settings(composed, ["++stop_at=null"])) == folder
    assert plain is not None
    _assert_same_run(plain, folder)
