"""Engine `embedded`: the llama.cpp server inside the wheel xllamacpp, so that nothing has to be built.

Run as a program, this module takes those of llama-server's flags that we use; so the engine is ServerEngine with
another command. It is a process of its own because llama.cpp ends its process where an assertion fails (seen with
a media folder without its final slash): that costs one track a retry, not the whole batch.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import os
import sys
import threading
from typing import Any

from musicflamingo_cli.engines.server.process import KEY_VARIABLE, Program
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.types import Windows

WHEEL = "xllamacpp"
HOW_TO_INSTALL = f"pip install {WHEEL}"


def embedded_server() -> Program:
    """Return the wheel's server. Raises ToolMissingError where the wheel is not installed."""
    if importlib.util.find_spec(WHEEL) is None:
        raise ToolMissingError(f"the wheel {WHEEL} is not installed", f"install it with: {HOW_TO_INSTALL}")
    version = f"{WHEEL} {importlib.metadata.version(WHEEL)}"
    command = (sys.executable, "-P", "-m", __name__)
    # Upstream as it is. Our clips, which end a little before a multiple of 30 s, at least cost no silent window.
    return Program(name="embedded", version=version, windows=Windows.PADDED, command=command)


def main() -> None:
    """Serve until killed."""
    import xllamacpp

    options = _parse()
    if options.list_devices:
        print(_device_list(xllamacpp.get_device_info()))
        return
    server = xllamacpp.Server(_params(xllamacpp, options))
    print(f"listening on {server.listening_address}", file=sys.stderr, flush=True)
    threading.Event().wait()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="musicflamingo-embedded", allow_abbrev=False)
    parser.add_argument("--list-devices", action="store_true")
    parser.add_argument("-m", dest="model")
    parser.add_argument("--mmproj")
    parser.add_argument("--lora")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--media-path")
    parser.add_argument("-np", dest="slots", type=int)
    parser.add_argument("-c", dest="context", type=int)
    parser.add_argument("-ngl", dest="gpu_layers", type=int)
    parser.add_argument("-t", dest="threads", type=int)
    parser.add_argument("-fa", dest="flash_attention", choices=("on", "off"))
    parser.add_argument("--threads-http", type=int)
    parser.add_argument("--cache-ram", type=int)
    parser.add_argument("--log-colors")  # ignored: the wheel uses no colors when it writes to a file
    for switch in ("--jinja", "--no-webui", "--no-slots", "--offline", "--no-warmup"):
        parser.add_argument(switch, action="store_true")
    return parser.parse_args()


def _params(xllamacpp: Any, options: argparse.Namespace) -> Any:
    """Return the options as the wheel's parameters, which are named as in llama.cpp's common_params."""
    params = xllamacpp.CommonParams()
    params.model.path, params.mmproj.path = options.model, options.mmproj
    params.hostnames, params.port = next(csv.reader([options.host])), options.port  # as llama-server reads it
    params.media_path = f"{options.media_path}/"  # llama.cpp asserts the final slash
    params.n_parallel, params.n_ctx = options.slots, options.context
    params.n_threads_http, params.cache_ram_mib = options.threads_http, options.cache_ram
    params.use_jinja, params.offline = options.jinja, options.offline
    params.ui, params.endpoint_slots, params.warmup = not options.no_webui, not options.no_slots, not options.no_warmup
    if options.lora:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(next(csv.reader([options.lora]))[0], 1.0)]
    if options.gpu_layers is not None:
        params.n_gpu_layers = options.gpu_layers
    if options.threads is not None:
        params.cpuparams.n_threads = options.threads
    if options.flash_attention:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type(binaries.FLASH_ATTENTION[options.flash_attention])
    if key := os.environ.get(KEY_VARIABLE):
        params.api_keys = [key]
    return params


def _device_list(devices: list[dict[str, Any]]) -> str:
    """Return the GPUs in the format of `llama-server --list-devices`."""
    lines = ["Available devices:"]
    for device in devices:
        if device["name"] != "CPU":
            total, free = device["memory_total"] >> 20, device["memory_free"] >> 20
            lines.append(f"  {device['name']}: {device['description']} ({total} MiB, {free} MiB free)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
