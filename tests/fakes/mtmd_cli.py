"""A fake llama-mtmd-cli that behaves or misbehaves on command."""

from __future__ import annotations

import sys
from pathlib import Path

_LOG = "I decoding audio batch 1/1, n_tokens_batch = 750\\nI llama_perf_context_print: eval time = 1 ms / 9 runs\\n"
BEHAVIOURS = {
    "answer": f"log({_LOG!r}); out(b'\\n\\n A warm track with drums.\\n\\n')",
    "echo": f"log({_LOG!r}); import json; out(json.dumps(sys.argv[1:]).encode())",
    "environment": f"log({_LOG!r}); import json, os; out(json.dumps(dict(os.environ)).encode())",
    "bad_utf8": f"log({_LOG!r}); out(b'A warm \\xff\\xfe track with drums.')",
    "nothing": f"log({_LOG!r})",
    "no_audio": "log('prompt eval time = 1 ms / 40 tokens\\neval time = 1 ms / 9 runs\\n'); out(b'A warm track.')",
    "loses": "log('decoding audio batch 1/1, n_tokens_batch = 750\\n'); out(b'A warm track with')",
    "loses_twice": (
        f"count = open(sys.argv[0] + '.count', 'a+'); count.write('x'); count.seek(0); times = len(count.read());"
        f" log({_LOG!r} if times > 2 else ''); out(b'A warm track with drums.' if times > 2 else b'A warm')"
    ),
    "crashes_twice": (
        f"count = open(sys.argv[0] + '.count', 'a+'); count.write('x'); count.seek(0); times = len(count.read());"
        f" log({_LOG!r}); times > 2 or sys.exit(3); out(b'A warm track with drums.')"
    ),
    "crash": "import os, signal; log('something odd\\n'); os.kill(os.getpid(), signal.SIGSEGV)",
    "illegal": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
    "memory": "log('ggml_backend_cuda: cudaMalloc failed: out of memory\\n'); sys.exit(1)",
    "overflow": "log('failed to decode audio\\nUnable to decode media chunk 1\\n'); sys.exit(1)",
    "stdin": f"log({_LOG!r}); out(b'stdin held: ' + repr(sys.stdin.read()).encode())",
    "hang": "import time; log('loading\\n'); time.sleep(600)",
    "grandchild": (
        "import subprocess, time; child = subprocess.Popen(['sleep', '600']);"
        " open(sys.argv[0] + '.pid', 'w').write(str(child.pid)); time.sleep(600)"
    ),
}


def write_fake(folder: Path, behaviour: str) -> Path:
    """Write a `llama-mtmd-cli` of this behaviour into a folder, and return the folder, for --llama-dir."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "llama-mtmd-cli"
    binary.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "if '--version' in sys.argv: print('version: 1 (fake)'); sys.exit()\n"
        "def out(data): sys.stdout.buffer.write(data); sys.stdout.flush()\n"
        "def log(text): sys.stderr.write(text); sys.stderr.flush()\n"
        f"{BEHAVIOURS[behaviour]}\n"
    )
    binary.chmod(0o755)
    return folder
