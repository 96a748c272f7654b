"""`score`: the PRM's score of every step of every candidate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamprm.choices import Device, Precision
from dreamprm.commands.command import command
from dreamprm.commands.files import StageData
from dreamprm.progress import Reporter, only_our_bars, say
from dreamprm.setting import Settings, setting

__all__ = ["ScoreStage", "main", "score"]


@dataclass
class ScoreStage(Settings):
    """The PRM's score of every step of every chain of `data`."""

    prm: str | None = setting(None, "the folder prm/ of a run, or any model that PRM loads")
    out: str = setting("scores.jsonl", "file that is written")
    batch_size: int = setting(8, "chains scored at once", least=1)
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    precision: Precision = setting(Precision.fp32, "bf16: autocast over fp32 parameters; pure_bf16: all in bf16")
    data: StageData = setting(StageData())


def score(settings: ScoreStage) -> Path:
    """Write the records of the data again with a score per step (`extra.step_scores`)."""
    import torch

    from dreamprm.commands.files import needed, read_records, write_records
    from dreamprm.config.build import build_device
    from dreamprm.errors import UserError
    from dreamprm.prm import PRM

    path = needed(settings.prm, "prm", "the folder prm/ of a run, or a model")
    only_our_bars()
    records = read_records(settings.data)
    device = build_device(settings.device)
    try:
        prm = PRM.from_pretrained(
            path, dtype=torch.bfloat16 if settings.precision is Precision.pure_bf16 else torch.float32
        ).to(device)
        scores: list[list[float]] = []
        size = settings.batch_size * 8
        bf16 = settings.precision is Precision.bf16
        with Reporter("score", len(records)) as report, torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for start in range(0, len(records), size):
                scores += prm.score_records(records[start : start + size], settings.batch_size)
                report.update(len(scores), {})
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    out = Path(settings.out)
    write_records(out, records, scores)
    say(f"{len(records)} chains with their step scores: {out}")
    return out


main = command("score", ScoreStage, score)
