"""Where things are: files that come with the product, and the user's folders on each system."""

from __future__ import annotations

from pathlib import Path

APP = "musicflamingo"
_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def data_file(*parts: str) -> Path:
    """Return a file of `configs/`, `scripts/` or `models/tiny/`: in a checkout, or inside the installed package."""
    installed = _PACKAGE.joinpath("_data", *parts)
    return installed if installed.exists() else _CHECKOUT.joinpath(*parts)


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


def built_in_prompts() -> Path:
    """Return the prompts file that comes with the product."""
    return data_file("configs", "prompts.yaml")
