"""Where the composed configuration lives, found from this file and not from the folder one happens to stand in."""

from __future__ import annotations

from pathlib import Path

from dreamprm.errors import ConfigError

__all__ = ["HYDRA_VERSION_BASE", "conf_dir"]

HYDRA_VERSION_BASE = "1.3"


def conf_dir() -> Path:
    """The absolute folder of the configuration: `dreamprm/conf` in a wheel, `conf/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(
        f"no train.yaml in {package / 'conf'} or {package.parents[1] / 'conf'}: "
        "install the package again, or run from a whole checkout"
    )
