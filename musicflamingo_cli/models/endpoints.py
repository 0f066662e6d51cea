"""Endpoints that caption for us: their addresses, their keys, and the models that they offer."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

from musicflamingo_cli._version import __version__
from musicflamingo_cli.config import Settings, yaml_loader
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.models.model import RemoteModel
from musicflamingo_cli.paths import LARGEST_YAML, read_regular, user_config_dir
from musicflamingo_cli.system.http import HttpReply, RequestError, is_loopback, send
from musicflamingo_cli.types import MAX_SECONDS

KEY_VARIABLE = "MUSICFLAMINGO_API_KEY"
_SECONDS = 20.0  # for a list of models
_TINY_PARAMETERS = 50_000_000  # a model of fewer knows no real music


def key_file() -> Path:
    """Return the file of keys: a line `URL: KEY` for each endpoint, readable by its owner only."""
    return user_config_dir() / "keys.yaml"


def key_hint() -> str:
    """Return how to give a key, for messages about one that is missing or wrong."""
    return f"set {KEY_VARIABLE}, or write `URL: KEY` into {key_file()}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask. ``url`` is the base of its API, without a slash at its end; ``key`` is not shown anywhere."""

    url: str
    key: str = field(default="", repr=False)
    verify: bool = True

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        seconds: float = _SECONDS,
        on_event_part: Callable[[bytes], None] | None = None,
    ) -> HttpReply:
        """Send a request with the key; ``body`` is sent as JSON. Raises RequestError. ``on_event_part``: see http.

        Some endpoints quote the key that they refuse, and messages go to terminals and logs: the answer is without it.
        """
        headers = {"Accept": "application/json", "User-Agent": f"musicflamingo/{__version__}"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        url = self.url + path
        reply = send(method, url, headers, data, seconds, verify=self.verify, on_event_part=on_event_part)
        return replace(reply, body=reply.body.replace(self.key.encode(), b"[key]")) if self.key else reply


@dataclass(frozen=True, slots=True)
class Offer:
    """What an endpoint says of itself. ``slots``: how many clips it takes at once, None where it does not say.

    ``pads``: whether it says that it pads audio to 30 s; the fewest tokens are expected of those that do not.
    ``adapter``: the one that `musicflamingo serve` has loaded, empty where there is none or it does not say.
    ``is_llama_server``: it may have adapters that a request chooses from (see ``adapter_number``).
    """

    model: RemoteModel
    slots: int | None
    pads: bool
    adapter: str = ""
    is_llama_server: bool = False


def endpoints_of(settings: Settings) -> list[Endpoint]:
    """Return the endpoints that the settings name. Raises ConfigError."""
    urls = list(dict.fromkeys((settings.endpoint or "").split()))
    return [parse_endpoint(url, settings.insecure) for url in urls]


def parse_endpoint(text: str, insecure: bool = False) -> Endpoint:
    """Return the endpoint at a URL, with its key. Raises ConfigError.

    Without a path, the API is at /v1. ``insecure``: http to other machines is allowed, and so is any certificate.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its text may quote a key: in `me:KEY/…@host` it is taken for the port
        raise ConfigError("the endpoint is not a URL of an API", _EXAMPLE) from None
    if parts.username or parts.password:  # the message must not show it
        raise ConfigError("the endpoint's URL holds a user name or key, which process lists show", key_hint())
    if parts.query or parts.fragment:  # nor this one
        raise ConfigError(
            "the endpoint's URL goes on after its path, where keys would show in process lists", key_hint()
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--endpoint {text} is not a URL of an API", _EXAMPLE)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    url = origin + (path or "/v1")
    if parts.scheme == "http" and not insecure and not is_loopback(url):
        raise ConfigError(f"{url} would get keys and music unencrypted", "use https://, or allow it with --insecure")
    return Endpoint(url, _key_for(url, origin), verify=not insecure)


_EXAMPLE = "for example: --endpoint https://captions.example.org/v1"


def _key_for(url: str, origin: str) -> str:
    """Return the key for an endpoint: the key file's, else that of the environment, else none."""
    ring = _read_keys(key_file())
    key = ring.get(url) or ring.get(origin) or os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"the key for {url} holds characters that no key has", key_hint())
    return key


def _read_keys(file: Path) -> Mapping[str, str]:
    """Return the keys by URL. Raises ConfigError where others could read the file."""
    import yaml

    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(f"{file} can be read by others", f"chmod 600 '{file}'")
        keys = yaml.load(read_regular(file, LARGEST_YAML).decode(), Loader=yaml_loader()) or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = type(error).__name__  # an error of YAML's quotes the line
        raise ConfigError(f"{file} cannot be read ({problem})", "write `URL: KEY` lines") from error
    if not isinstance(keys, dict) or not all(isinstance(key, str) for pair in keys.items() for key in pair):
        raise ConfigError(f"{file} must hold `URL: KEY` lines", "write each URL and key as text")
    return {url.rstrip("/"): key for url, key in keys.items()}


def offer_of(endpoint: Endpoint, wanted: str = "auto") -> Offer:
    """Return the model of this name (`auto`: the first) that an endpoint offers, and what it says of itself.

    Raises ModelError, ConfigError where the key is refused or there is no such model, RequestError where it cannot be
    reached.
    """
    reply = endpoint.send("GET", "/models")
    if reply.status in (401, 403):
        raise ConfigError(f"{endpoint.url} refuses the key ({reply.status})", key_hint())
    if reply.status != 200:
        raise RequestError(f"it answered {reply.status} for its list of models")
    offered = _models_in(reply.body)
    if not offered:
        raise ModelError(f"{endpoint.url} offers no model", "check the URL: the API often ends with /v1")
    found = next((entry for entry in offered if wanted in ("auto", entry["id"], _short(entry["id"]))), None)
    if found is None:
        names = ", ".join(_short(entry["id"]) for entry in offered[:10])
        raise ConfigError(f"{endpoint.url} has no model {wanted}", f"it has: {names}")
    modalities = _mapping(found.get("architecture")).get("input_modalities")
    if isinstance(modalities, list) and "audio" not in modalities:
        raise ModelError(f"{_short(found['id'])} at {endpoint.url} takes no audio", "serve it with its --mmproj")
    # Ours says so. A llama-server does not: with our patch it trims.
    pads = _mapping(found.get("meta")).get("pads_audio") is True
    adapter = _mapping(found.get("meta")).get("adapter")
    return Offer(
        model=_model_from(found),
        slots=_slots_of(endpoint, found),
        pads=pads,
        adapter=adapter if isinstance(adapter, str) else "",
        is_llama_server=found.get("owned_by") == "llamacpp",
    )


def adapter_number(endpoint: Endpoint, name: str) -> int | None:
    """Return llama-server's number of an adapter: by its file's name, or that of the folder; None without such a one.

    Raises RequestError.
    """
    try:
        listed = json.loads(_at_root(endpoint).send("GET", "/lora-adapters").body)
    except (ValueError, RecursionError):
        return None
    for entry in listed if isinstance(listed, list) else []:
        path, number = _mapping(entry).get("path"), _mapping(entry).get("id")
        if (
            isinstance(path, str)
            and isinstance(number, int)
            and name in (PurePath(path).stem, PurePath(path).parent.name)
        ):
            return number
    return None


def _at_root(endpoint: Endpoint) -> Endpoint:
    """What llama-server has beside its API."""
    return Endpoint(endpoint.url.removesuffix("/v1"), endpoint.key, endpoint.verify)


def _models_in(body: bytes) -> list[dict[str, Any]]:
    try:
        entries = _mapping(json.loads(body)).get("data")
    except (ValueError, RecursionError):
        entries = None
    listed = entries if isinstance(entries, list) else []
    return [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]]


def _model_from(entry: Mapping[str, Any]) -> RemoteModel:
    meta, name = _mapping(entry.get("meta")), _short(entry["id"])
    parameters = meta.get("n_params")
    is_small = isinstance(parameters, int) and parameters < _TINY_PARAMETERS
    sizes = (meta.get("n_ctx"), meta.get("n_ctx_train"), entry.get("max_model_len"))  # the last: vLLM's name for it
    context = next((size for size in sizes if isinstance(size, int) and size > 0), None)
    seconds = meta.get("max_seconds")
    return RemoteModel(
        name=name,
        identifier=entry["id"],
        context_length=context or 32768,
        is_tiny=is_small or "tiny" in name.lower() or meta.get("tiny") is True,
        max_seconds=float(seconds)
        if isinstance(seconds, (int, float)) and 1 <= seconds <= MAX_SECONDS
        else MAX_SECONDS,
        reasons=meta.get("reasons") is True,
    )


def _slots_of(endpoint: Endpoint, entry: Mapping[str, Any]) -> int | None:
    """Return the number of slots: `musicflamingo serve` lists it, llama-server has it beside its API."""
    slots = _mapping(entry.get("meta")).get("slots")
    if slots is None and entry.get("owned_by") == "llamacpp":
        try:
            slots = _mapping(json.loads(_at_root(endpoint).send("GET", "/props").body)).get("total_slots")
        except (RequestError, ValueError, RecursionError):
            return None
    return slots if isinstance(slots, int) and 0 < slots <= 1024 else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(identifier: str) -> str:
    """A model's name without folders of the endpoint's machine: llama-server's is the path of the file."""
    return identifier.rpartition("/")[2] if identifier.endswith(".gguf") else identifier


def resolve_remote(settings: Settings) -> RemoteModel:
    """Return the model that all reachable endpoints offer.

    Raises ModelError where none can be reached, ConfigError where they offer different ones.
    """
    found: dict[str, str] = {}
    model: RemoteModel | None = None
    problems = []
    for endpoint in endpoints_of(settings):
        try:
            model = offer_of(endpoint, settings.model).model
        except RequestError as error:
            problems.append(f"{endpoint.url}: {error}")
            continue
        found.setdefault(model.name, endpoint.url)
    if model is None:
        raise ModelError(f"no endpoint can be reached ({'; '.join(problems)})", "check the URL, and that it is running")
    if len(found) > 1:
        both = ", ".join(f"{url} has {name}" for name, url in found.items())
        raise ConfigError(f"the endpoints offer different models: {both}", "name one that all have with --model")
    return model
