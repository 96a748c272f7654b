"""How every entry starts: Hydra composes, a wrong setting is one message and exit code 2, nothing is scattered."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dreamprm.config.paths import HYDRA_VERSION_BASE, conf_dir
from dreamprm.errors import ConfigError, UserError, fault_of_machine

__all__ = ["compose_config", "is_group", "launch"]

_KEY = re.compile(r"^(?P<mark>\+\+|\+|~)?(?P<key>[^=]+)=", re.DOTALL)
_PASS_ON = {"--help", "-h", "--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc"}


def is_group(override: str) -> bool:
    """Whether an override chooses a file of a group (`weigher=uniform`) and does not set a value."""
    match = _KEY.match(override)
    if match is None:
        return False
    return (conf_dir() / match["key"].split("@")[0].split(":")[0]).is_dir()


def compose_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `conf/NAME.yaml` with overrides, in any folder and as often as one likes.

    Raises ConfigError with what is allowed when a group, an option or an override is not right.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base=HYDRA_VERSION_BASE, config_dir=str(conf_dir())):
            return compose(name, overrides=[_settable(item) for item in overrides])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_plain(str(error))) from error


def launch(name: str, run: Callable[[DictConfig, list[str]], None], arguments: Sequence[str], program: str) -> None:
    """Run `run(composed config, overrides)` once, or once per combination with `--multirun`.

    The configuration is composed and checked before Hydra starts any job, so that a typing error costs no work.
    Leaves with code 2 on a UserError, 130 on Ctrl-C.
    """
    flags = [item for item in arguments if item.startswith("-")]
    overrides = [_settable(item) for item in arguments if not item.startswith("-")]
    try:
        if not _PASS_ON.intersection(flags):
            compose_config(name, _first_of_sweep(overrides) if {"-m", "--multirun"} & set(flags) else overrides)
    except UserError as error:
        _leave(error)

    def task(config: DictConfig) -> None:
        try:
            run(config, list(HydraConfig.get().overrides.task))
        except UserError as error:
            _leave(error)
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")
            sys.exit(130)
        except Exception as error:
            fault = fault_of_machine(error)
            if fault is None:
                raise
            _leave(fault)

    task.__module__ = __name__
    sys.argv = [program, *flags, *overrides]
    GlobalHydra.instance().clear()
    hydra.main(version_base=HYDRA_VERSION_BASE, config_path=str(conf_dir()), config_name=name)(task)()


def _settable(override: str) -> str:
    """`a.b=1` as `++a.b=1`: the dataclass schema says what exists, so that files need not list every default."""
    match = _KEY.match(override)
    if match is None:
        raise ConfigError(f"{override!r} is no setting: write name=value, e.g. seed=1 or +experiment=instance_net")
    if is_group(override) or match["mark"] == "~" or match["key"].startswith("hydra."):
        return override
    return "++" + override.lstrip("+")


def _first_of_sweep(overrides: Sequence[str]) -> list[str]:
    try:
        parsed = OverridesParser.create().parse_overrides(overrides=list(overrides))
    except HydraException as error:
        raise ConfigError(_plain(str(error))) from error
    found: list[str] = []
    for item in parsed:
        if item.is_sweep_override():
            mark = "++" if item.input_line and item.input_line.startswith("++") else ""
            mark = mark or ("+" if item.input_line and item.input_line.startswith("+") else "")
            found.append(f"{mark}{item.get_key_element().lstrip('+')}={next(iter(item.sweep_string_iterator()))}")
        else:
            found.append(str(item.input_line))
    return found


def _plain(message: str) -> str:
    """Hydra's message without its advice on forms that nobody here has to know."""
    kept: list[str] = []
    for line in message.splitlines():
        if line.startswith("Config search path"):
            break
        if line.strip() and "HYDRA_FULL_ERROR" not in line and not line.startswith("See https"):
            kept.append(line.strip())
    return " ".join(kept).replace("Available options in", "; options of").replace(" ; ", "; ")


def _leave(error: UserError) -> None:
    if os.environ.get("HYDRA_FULL_ERROR"):
        traceback.print_exc()
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)


def plain_container(config: DictConfig) -> dict[str, object]:
    """A composed configuration as plain nested dicts, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
