"""The config room: dataclass schemas, the one place that turns them into objects, and how entries start."""

from dreamprm.config.paths import conf_dir
from dreamprm.config.resolve import resolve_train, to_settings
from dreamprm.config.schema import TrainConfig
from dreamprm.errors import ConfigError, UserError

__all__ = ["ConfigError", "TrainConfig", "UserError", "conf_dir", "resolve_train", "to_settings"]
