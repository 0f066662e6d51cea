"""Where things are: files that come with the product, and the user's folders on each system; reading small files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from musicflamingo_cli.errors import ConfigError

LARGEST_TEXT = 1 << 24  # bytes
LARGEST_YAML = 1 << 20  # which takes seconds to parse
_BLOCK = 1 << 16  # bytes
APP = "musicflamingo"
_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def data_file(*parts: str) -> Path:
    """Return a file of `configs/`, `scripts/` or `models/tiny/`: in a checkout, or inside the installed package."""
    installed = _PACKAGE.joinpath("_data", *parts)
    return installed if installed.exists() else _CHECKOUT.joinpath(*parts)


def expanded(path: str | Path) -> Path:
    """Return a path with `~` replaced by the folder that it stands for. Raises ConfigError for an unknown user's."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise ConfigError(f"{path}: there is no folder {user}", "name the whole path") from error


def default_models_dir() -> Path:
    """Return a checkout's own `models/`, else a folder of the user's."""
    if (_CHECKOUT / "pyproject.toml").exists() and (_CHECKOUT / "models").is_dir():
        return _CHECKOUT / "models"
    import platformdirs

    return platformdirs.user_data_path(APP) / "models"


def user_config_dir() -> Path:
    """Return the folder of the user's settings and prompts."""
    import platformdirs

    return platformdirs.user_config_path(APP)


def user_log_dir() -> Path:
    """Return the folder of logs of failed answers."""
    import platformdirs

    return platformdirs.user_log_path(APP)


def user_state_dir() -> Path:
    """Return the folder of run logs."""
    import platformdirs

    return platformdirs.user_state_path(APP)


def llama_cache_dir() -> Path:
    """Return where scripts/build_llama_cpp.sh installs its builds; the link `current` in it is the newest."""
    import platformdirs

    return platformdirs.user_cache_path(APP) / "llama.cpp"


def checkpoint_cache_dir() -> Path:
    """Return the folder of checkpoints that are made from GGUF files."""
    import platformdirs

    return platformdirs.user_cache_path(APP) / "checkpoints"


def features_cache_dir() -> Path:
    """Return the folder of encoded audio, for training."""
    import platformdirs

    return platformdirs.user_cache_path(APP) / "features"


def habits_cache_dir() -> Path:
    """Return the folder of what models answer about silence and noise."""
    import platformdirs

    return platformdirs.user_cache_path(APP) / "habits"


def built_in_prompts() -> Path:
    """Return the prompts file that comes with the product."""
    return data_file("configs", "prompts.yaml")


def read_regular(path: Path, limit: int = LARGEST_TEXT) -> bytes:
    """Return a file's bytes, at most ``limit``. Raises OSError, also for a pipe or a device, which might never end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        require_regular(status)
        data = _read_up_to(limit + 1, file, status.st_size) if status.st_size <= limit else b""
        if max(len(data), status.st_size) > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MiB")
        return data


def _read_up_to(most: int, file: BinaryIO, expected: int) -> bytes:
    """Read at most ``most`` bytes of a file of about ``expected`` bytes; one in /proc may hold more.

    ``file.read(most)`` would take that much memory for any file.
    """
    data = b""
    while part := file.read(min(max(expected + 1, len(data), _BLOCK), most - len(data))):
        data += part
    return data


def require_regular(status: os.stat_result) -> None:
    """Raise OSError for what is neither a file nor a folder, which has an error of its own when it is read."""
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
