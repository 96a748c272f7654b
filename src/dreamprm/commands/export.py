"""`export`: a PRM as a folder for another engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamprm.choices import Precision
from dreamprm.commands.command import command
from dreamprm.progress import only_our_bars, say
from dreamprm.setting import Settings, setting

__all__ = ["ExportStage", "export", "main"]


@dataclass
class ExportStage(Settings):
    """The PRM as a folder that another engine serves unchanged, with the command that does it in its README.md."""

    prm: str | None = setting(None, "the folder prm/ of a run, or any model that PRM loads")
    to: str = setting("vllm", "the engine", words=("vllm",))
    out: str | None = setting(None, "folder that is written; it must not be there yet")
    precision: Precision = setting(Precision.fp32, "of the parameters: fp32, or pure_bf16 (half the size)")


def export(settings: ExportStage) -> Path:
    """Write the folder whole or not at all, and print the command that serves it."""
    import torch

    from dreamprm.commands.files import needed
    from dreamprm.errors import ConfigError, UserError
    from dreamprm.files import replacing
    from dreamprm.prm import PRM
    from dreamprm.serve.vllm_folder import export_vllm, serve_command

    path = needed(settings.prm, "prm", "the folder prm/ of a run, or a model")
    out = Path(needed(settings.out, "out", "the folder to write"))
    if out.exists():
        raise ConfigError(f"out={out} is there already; name a folder that is not")
    if settings.precision is Precision.bf16:
        raise ConfigError("precision=bf16 is autocast, no kind of parameters; export in fp32 or pure_bf16")
    only_our_bars()
    dtype = torch.bfloat16 if settings.precision is Precision.pure_bf16 else torch.float32
    try:
        prm = PRM.from_pretrained(path, dtype=dtype)
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as part:
            export_vllm(prm, part, out)
    except (ValueError, OSError) as error:
        raise UserError(f"prm={path}: {error}") from error
    except UserError as error:
        raise UserError(f"prm={path} {error}") from error
    say(f"{out}: serve it by\n{serve_command(out)}")
    return out


main = command("export", ExportStage, export)
