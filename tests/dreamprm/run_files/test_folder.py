"""A run's folder: held by one process, its settings as the run wrote them, nothing of a foreign one looked up."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dreamprm.config import ConfigError, TrainConfig
from dreamprm.config.launch import compose_config
from dreamprm.errors import UserError
from dreamprm.run_files.folder import fresh_folder, locked, resumed_settings, run_folder

Settings = Callable[..., TrainConfig]


@pytest.fixture
def folder(tiny_settings: Settings) -> Path:
    """A fresh run's folder, with its config.yaml."""
    return fresh_folder(tiny_settings())


def _resume(folder: Path) -> TrainConfig:
    return resumed_settings(OmegaConf.create({"resume": str(folder)}), [f"resume={folder}"])


def _rewrite(folder: Path, old: str, new: str, *, sealed: bool) -> None:
    """config.yaml with another text; sealed: with the hash that a run would have written."""
    body, mark, stated = (folder / "config.yaml").read_text().rpartition("# hash of what stands above: ")
    assert old in body
    body = body.replace(old, new, 1)
    stated = hashlib.blake2b(body.encode(), digest_size=16).hexdigest() if sealed else stated.strip()
    (folder / "config.yaml").write_text(f"{body}{mark}{stated}\n")


def test_what_the_run_wrote_is_read(folder: Path) -> None:
    assert _resume(folder).resume == str(folder)


def test_an_edited_config_is_refused(folder: Path) -> None:
    _rewrite(folder, "seed: 0", "seed: 7", sealed=False)
    with pytest.raises(ConfigError, match=r"config\.yaml is not what the run wrote .*: undo the edit, and give what"):
        _resume(folder)


@pytest.mark.parametrize("sealed", [False, True])
def test_nothing_of_a_foreign_folder_is_looked_up(folder: Path, sealed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    _rewrite(folder, "description: ", "description: ${oc.env:SECRET} # ", sealed=sealed)
    with pytest.raises(ConfigError, match="would be replaced by something else, which no run writes") as caught:
        _resume(folder)
    assert "hunter2" not in str(caught.value)


def test_nor_on_ones_own_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml and report.html are shown to others: what a name stands for on this machine never gets there."""
    monkeypatch.setenv("SECRET", "hunter2")
    for word in ("name=${oc.env:SECRET}", "+description='${oc.env:SECRET}'", "data.path=[${oc.env:SECRET}]"):
        with pytest.raises(ConfigError, match=r"\$\{…\} is not looked up here: write the value itself") as caught:
            compose_config("train", [word])
        assert "hunter2" not in str(caught.value)


def test_another_process_in_the_folder_is_refused(folder: Path) -> None:
    script = "import sys, pathlib\nfrom dreamprm.run_files.folder import locked\n"
    script += "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by another process \(id {other.pid}\)"), locked(folder):
            pass
        other.kill()
    with locked(folder):  # however it ended, the folder is free again
        pass


def test_of_two_that_take_a_folder_one_gets_it(tiny_settings: Settings) -> None:
    settings = tiny_settings()
    fresh_folder(settings)
    with pytest.raises(UserError, match="holds a run already"), run_folder(settings):
        pass


def test_files_have_the_modes_that_the_umask_gives(tmp_path: Path) -> None:
    """safetensors writes 0600 whatever the umask, and colleagues could not read the model."""
    script = (
        "import sys, pathlib, torch\n"
        "from safetensors.torch import save_file\n"
        "from dreamprm.files import replacing, write_atomically, write_new\n"
        "from dreamprm.run_files.checkpoint import save_checkpoint\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with replacing(folder / 'x.safetensors') as part: save_file({'a': torch.ones(2)}, part)\n"
        "write_atomically(folder / 'x.json', b'{}')\n"
        "write_new(folder / 'x.yaml', b'')\n"
        "save_checkpoint(folder / 'checkpoints', 1, {'a': torch.ones(2)}, keep=1)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, umask=0o027)
    found = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert len(found) == 7
    for path, mode in found.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~0o027, path


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(tiny_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(UserError, match=r"cannot be written: .*permission denied"):
        fresh_folder(tiny_settings(run="closed/run"))
