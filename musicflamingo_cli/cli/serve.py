"""`musicflamingo serve`: this machine as a captioning endpoint."""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, ModelOptions, command, console_for
from musicflamingo_cli.errors import ConfigError, ToolMissingError

if TYPE_CHECKING:
    from musicflamingo_cli.cli.console import Console

_TOKEN_VARIABLE = "MUSICFLAMINGO_SERVE_TOKEN"
_HOW_TO_INSTALL = "pip install 'musicflamingo[serve]'"
_MANY = 1000  # tracks that an engine is opened for: how many will come is not known


@command(app)
def serve(
    options: ModelOptions,
    common: Common,
    json: Json,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; another than this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port; 0: a free one.", min=0, max=65535)] = 8417,
    queue: Annotated[
        int, typer.Option("--queue", help="Requests that may wait; more are refused.", min=0, max=10_000)
    ] = 16,
    max_upload: Annotated[
        int, typer.Option("--max-upload", help="The largest file, in MiB.", min=1, max=100_000, metavar="MIB")
    ] = 256,
) -> None:
    """Caption for others: a chat API that takes audio, and POST /caption for files."""
    from musicflamingo_cli.captioning.captioner import open_captioner
    from musicflamingo_cli.cli.outcomes import announce, outcome_json
    from musicflamingo_cli.types import Workload

    console = console_for(common, json.as_json)
    _require_packages()
    from musicflamingo_cli.serving.app import Endpoint
    from musicflamingo_cli.serving.clips import ClipStore

    settings = options.settings(common)
    token, source = _token(host)
    workload = Workload(_MANY, 5, at_once=_MANY, is_conversation=True)
    with _listening(host, port) as listener, open_captioner(settings, workload) as captioner:
        announce(console, captioner)
        with ClipStore(captioner.policy.excerpt, 2 * captioner.slots) as clips:
            endpoint = Endpoint(captioner, settings, clips, outcome_json).app(token, queue, max_upload << 20)
            _show_address(console, listener, source, captioner.model.name)
            _run(endpoint, listener)


def _require_packages() -> None:
    from importlib.util import find_spec

    if missing := [name for name in ("starlette", "uvicorn", "python_multipart") if find_spec(name) is None]:
        raise ToolMissingError(f"serve needs {missing[0]}", f"install it with: {_HOW_TO_INSTALL}")


def _token(host: str) -> tuple[str, str]:
    """The token and where it is: of the environment, else for this machine alone one in a private file."""
    from musicflamingo_cli.serving.guard import require_token
    from musicflamingo_cli.system.http import is_loopback

    token = os.environ.get(_TOKEN_VARIABLE, "")
    if not token and not is_loopback(f"http://{f'[{host}]' if ':' in host else host}"):
        raise ConfigError(f"--host {host} needs a token in {_TOKEN_VARIABLE}", "make one with: openssl rand -hex 24")
    source = _TOKEN_VARIABLE
    if not token:
        token, source = _token_of_file()
    require_token(token)
    return token, source


def _token_of_file() -> tuple[str, str]:
    from musicflamingo_cli.paths import read_regular, user_state_dir

    file = user_state_dir() / "serve-token"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as new:
                new.write(secrets.token_urlsafe(32) + "\n")
        if Path(file).stat().st_mode & 0o077:
            raise ConfigError(f"{file} can be read by others", f"remove it: rm '{file}'")
        return read_regular(file).decode("ascii", errors="replace").strip(), str(file)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}", f"set a token in {_TOKEN_VARIABLE}") from error


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", "choose another with --port") from error
    with listener:
        yield listener


def _show_address(console: "Console", listener: socket.socket, source: str, model: str) -> None:
    from musicflamingo_cli.system.http import is_loopback

    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if not is_loopback(url):
        console.warn(
            f"{url} is open to other machines and not encrypted: whoever reads the traffic gets token and music."
            " Put a proxy with TLS before it, or use a tunnel: ssh -L"
        )
    console.info(f"token: {source}")
    if source != _TOKEN_VARIABLE:
        console.info(f"to ask: MUSICFLAMINGO_API_KEY=$(cat '{source}') musicflamingo caption FILE --endpoint {url}")
    console.data(f"listening on {url}")
    console.json({"url": url, "model": model, "token": source})


def _run(endpoint: object, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        endpoint,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
    with contextlib.suppress(KeyboardInterrupt):  # the usual end of a server
        uvicorn.Server(config).run(sockets=[listener])
