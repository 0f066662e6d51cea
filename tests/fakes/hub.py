"""A fake model hub on loopback with the real one's protocol: files, metadata by HEAD, redirects, ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"
_IN_GIT = (".json", ".jinja", ".txt", ".py", ".md", "LICENSE")  # endings of files that are not in LFS


@dataclass
class Hub:
    """``repositories``: name → file name → bytes. The other fields make it misbehave."""

    repositories: dict[str, dict[str, bytes]]
    token: str = ""  # required in every request, when set
    gated: bool = False
    busy: int = 0  # answers of 429 before the first good one
    cut_after: int = 0  # bytes after which the storage closes the connection, each time
    flip: bool = False  # one byte of what the storage sends is wrong
    requests: list[str] = field(default_factory=list)
    storage_saw_token: bool = False
    port: int = 9  # nobody listens on this one

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        # As for the real one, the storage is another host, which must not see the token.
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.port, self.storage_port = (server.server_address[1] for server in self._servers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        return {"HF_ENDPOINT": f"http://127.0.0.1:{self.port}", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}

    @property
    def downloads(self) -> list[str]:
        """The large files that were sent, with the requested ranges."""
        return [request for request in self.requests if request.startswith("GET /storage/")]

    @property
    def small_downloads(self) -> list[str]:
        """The names of the files that were sent which are not in LFS."""
        return [
            request.split("/")[-1]
            for request in self.requests
            if request.startswith("GET /") and "/resolve/" in request
        ]


def blob_id(data: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".rstrip())
        if path.startswith("/storage/"):
            return self.send_bytes(path.removeprefix("/storage/"))
        if self.hub.busy:
            self.hub.busy -= 1
            return self.refuse(429, "", {"Retry-After": "0"})
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.refuse(401, "GatedRepo" if self.hub.gated else "RepoNotFound")
        for name, files in self.hub.repositories.items():
            if path.startswith(f"/api/models/{name}/revision/"):
                return self.send_info(name, files, path.rpartition("/")[2])
            if path.startswith(f"/{name}/resolve/"):
                file = path.removeprefix(f"/{name}/resolve/").partition("/")[2]
                return self.send_small(files[file]) if file.endswith(_IN_GIT) else self.redirect(files, file)
        return self.refuse(404, "RepoNotFound")

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-Error-Code": code, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_info(self, repository: str, files: dict[str, bytes], revision: str) -> None:
        if revision != "main":
            return self.refuse(404, "RevisionNotFound")
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": blob_id(data)}
            if name.endswith(_IN_GIT)
            else {
                "rfilename": name,
                "size": len(data),
                "blobId": "0" * 40,
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130},
            }
            for name, data in files.items()
        ]
        body = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_small(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{blob_id(data)}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def redirect(self, files: dict[str, bytes], name: str) -> None:
        digest = hashlib.sha256(files[name]).hexdigest()
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.hub.storage_port}/storage/{digest}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(files[name])))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_bytes(self, digest: str) -> None:
        self.hub.storage_saw_token |= "Authorization" in self.headers
        blobs = (data for files in self.hub.repositories.values() for data in files.values())
        data = next(data for data in blobs if hashlib.sha256(data).hexdigest() == digest)
        if self.hub.flip:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            end = start + self.hub.cut_after if self.hub.cut_after else len(data)
            self.wfile.write(data[start:end])
            if end < len(data):
                self.close_connection = True
