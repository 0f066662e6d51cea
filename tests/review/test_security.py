"""Attacks on a review that runs: each is a request that a page, a program or a person of this machine could make."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from musicflamingo_cli.sidecars.merge import merge_sidecar
from tests.review.conftest import NASTY, Server, StartReview, info_of, make_dataset, write_tone

SECRET = "the content of a private file"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tracks, a link out of the dataset, a text file that is called a track, and names that are markup."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "private.wav").write_text(SECRET)
    write_tone(folder / "outside.wav")
    root = make_dataset(folder / "music", 2)
    extra = root / "extra"
    extra.mkdir()
    (extra / "x link.wav").symlink_to(folder / "outside.wav")
    (extra / "y secret.wav").symlink_to(folder / "private.wav")
    (extra / "z text.mp3").write_text(f"<script>{SECRET}</script>")
    nasty = write_tone(extra / "zz <img src=x onerror=alert(1)>.wav")
    nasty.with_suffix(".INFO").write_text(json.dumps({**info_of(0), "music_flamingo_full": NASTY}))
    return root


@pytest.fixture(scope="module")
def server(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(dataset, environment={"XDG_STATE_HOME": str(tmp_path_factory.mktemp("state"))})
    yield started.enter()
    started.close()


def number_of(server: Server, name: str) -> int:
    ids = server.get("/api/order?sort=name").json()["ids"]
    rows = server.get(f"/api/rows?ids={','.join(map(str, ids))}").json()["rows"]
    return int(next(row["id"] for row in rows if name in row["name"]))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1:1",
        "127.0.0.1",
        "localhost.evil.example:{port}",
        "[::2]:{port}",
    ],
)
def test_a_foreign_host_is_refused(server: Server, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name leads to this machine now."""
    answer = server.get("/api/session", Host=host.format(port=server.port))
    assert answer.status == 403
    assert server.csrf.encode() not in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
def test_the_names_of_this_machine_are_accepted(server: Server, host: str) -> None:
    assert server.get("/api/session", Host=f"{host}:{server.port}").status == 200


def test_two_hosts_or_none_are_refused(server: Server) -> None:
    for lines in (f"Host: 127.0.0.1:{server.port}\r\nHost: evil.example\r\n", ""):
        head = f"GET /api/session HTTP/1.1\r\n{lines}Cookie: {server.cookie}\r\nConnection: close\r\n\r\n"
        assert raw(server, head.encode()).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "file://"]
)
def test_a_foreign_origin_is_refused(server: Server, method: str, origin: str) -> None:
    headers = {
        "Origin": origin.format(port=server.port),
        "X-Review-CSRF": server.csrf,
        "Content-Type": "application/json",
    }
    path = "/api/session" if method == "GET" else "/api/undo"
    assert server.request(method, path, "{}" if method == "POST" else None, headers).status == 403


def test_an_origin_may_be_missing_for_reads_only(server: Server) -> None:
    assert server.get("/api/session").status == 200
    assert server.post("/api/undo", Origin="").status == 403
    assert server.post("/api/undo").status == 200


def test_requests_of_other_sites_are_refused(server: Server) -> None:
    """What browsers say of an <audio> or a script of another page, or of another server of this machine."""
    for site in ("cross-site", "same-site"):
        assert server.get("/api/tracks/0/audio", **{"Sec-Fetch-Site": site}).status == 403
    assert server.get("/api/tracks/0/audio", **{"Sec-Fetch-Site": "same-origin"}).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/api/session", "/api/order", "/api/tracks/0", "/api/tracks/0/audio"]
)
def test_nothing_is_served_without_a_cookie(server: Server, path: str) -> None:
    for cookie in ("", "musicflamingo-review-1=x", f"musicflamingo-review-{server.port}=wrong", "\x01=;;"):
        answer = server.get(path, Cookie=cookie)
        assert answer.status == 401
        assert b"script" not in answer.body


@pytest.mark.parametrize("other", ['prefs={"theme":"dark"}', "name=José", 'q="open', "a=b c", "=;;", "musicflamingo"])
def test_cookies_of_other_local_programs_lock_nobody_out(server: Server, other: str) -> None:
    for cookie in (f"{other}; {server.cookie}", f"{server.cookie};{other}"):
        assert server.get("/api/session", Cookie=cookie).status == 200


def test_half_a_character_in_a_caption_is_shown(start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 1)
    (file,) = root.rglob("*.INFO")
    merge_sidecar(file, {"music_flamingo_full": "A song \ud83d of hope."})
    server = start_review(root).enter()
    assert server.caption(0)["text"] == "A song \ud83d of hope."


def test_a_token_lets_one_browser_in(start_review: StartReview, dataset: Path) -> None:
    server = start_review(dataset, "--read-only")
    path = server.url.partition(f":{server.port}")[2]
    assert server.request("HEAD", path).status == 403, "a preview of the link must not use it up"
    cookie = server.get(path).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    for used in (path, "/enter", "/enter?token=", "/enter?token=%ff%fe"):
        assert server.get(used).status == 403
    assert server.process.stdout
    newer = server.process.stdout.readline().strip().removeprefix("for another browser: ")
    assert server.get(newer.partition(f":{server.port}")[2]).status == 200


def test_the_token_is_in_no_argument_and_no_log(server: Server) -> None:
    token = server.url.partition("token=")[2]
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert token not in listed


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become another user")
def test_another_user_of_this_machine_gets_nothing(server: Server) -> None:
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{server.port}/api/order').read())"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code]
    if not Path("/usr/bin/python3").exists():
        command[-3:] = ["curl", "-sf", f"http://127.0.0.1:{server.port}/api/order"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ids" not in done.stdout
    assert "401" in done.stderr or done.returncode == 22


@pytest.mark.parametrize("change", [{"X-Review-CSRF": ""}, {"X-Review-CSRF": "guess"}, {"Content-Type": "text/plain"}])
def test_a_forged_write_is_refused(server: Server, change: dict[str, str]) -> None:
    """A form of another page can send a cookie and plain text, but neither the header nor JSON."""
    before = server.track(0)
    body = {"preset": "full", "text": "Forged.", "base": server.caption(0)["base"]}
    assert server.post("/api/tracks/0/edit", body, **change).status == 403
    assert server.track(0) == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
def test_other_methods_do_nothing(server: Server, method: str) -> None:
    headers = {
        "Origin": f"http://127.0.0.1:{server.port}",
        "X-Review-CSRF": server.csrf,
        "Content-Type": "application/json",
    }
    assert server.request(method, "/api/tracks/0/edit", "{}", headers).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/api.py",
        "/static//etc/passwd",
        "/static/..\\app.py",
        "/static/__init__.py",
        "/api/tracks/../../../etc/passwd/audio",
        "/api/tracks/-1",
        "/api/tracks/-1/audio",
        "/api/tracks/99999999999999999999",
        "/api/tracks/0%00/audio",
        "http://evil.example/",
    ],
)
def test_no_path_leads_out(server: Server, path: str) -> None:
    answer = server.get(path)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


def test_links_out_of_the_dataset_are_not_served(server: Server, start_review: StartReview, dataset: Path) -> None:
    number = number_of(server, "x link")
    assert server.get(f"/api/tracks/{number}/audio").status == 415
    assert server.get(f"/api/tracks/{number}/audio?wav=1").status == 415
    following = start_review(dataset, "--follow-links", "--read-only").enter()
    assert following.get(f"/api/tracks/{number_of(following, 'x link')}/audio").status == 200


def test_what_is_no_audio_is_not_served(server: Server) -> None:
    for name in ("y secret", "z text"):
        number = number_of(server, name)
        for path in (
            f"/api/tracks/{number}/audio",
            f"/api/tracks/{number}/audio?wav=1",
            f"/api/tracks/{number}/picture",
        ):
            answer = server.get(path)
            assert answer.status == 415
            assert SECRET.encode() not in answer.body


def test_every_answer_has_the_headers(server: Server) -> None:
    for path in ("/", "/static/app.js", "/static/shared.css", "/api/session", "/api/tracks/0/audio", "/nothing"):
        answer = server.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_the_page_has_no_inline_script_and_no_host(server: Server) -> None:
    page = server.get("/").body.decode()
    assert "<script" in page
    assert "</script>" in page
    for part in ("onclick", "onload", "style=", "<style", "http:", "https:"):
        assert part not in page
    assert all(tag.startswith(' type="module" src="/static/') for tag in page.split("<script")[1:])


def test_a_write_to_an_older_state_is_refused_with_both(server: Server, dataset: Path) -> None:
    old = server.caption(1)
    first = {"preset": "full", "text": "Theirs, saved first.", "base": old["base"]}
    assert server.post("/api/tracks/1/edit", first).status == 200
    answer = server.post("/api/tracks/1/edit", {**first, "text": "Mine, typed meanwhile."})
    assert answer.status == 409
    assert answer.json()["conflict"]["theirs"] == "Theirs, saved first."
    assert server.caption(1)["text"] == "Theirs, saved first."
    newest = {**first, "text": "Mine, typed meanwhile.", "base": answer.json()["conflict"]["base"]}
    assert server.post("/api/tracks/1/edit", newest).status == 200
    assert server.post("/api/undo").status == 200
    assert server.post("/api/undo").status == 200
    assert server.caption(1)["text"] == old["text"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"preset": "../x", "text": "a", "base": ""}',
        '{"preset": "model", "text": "a"}',
    ],
)
def test_absurd_bodies_change_nothing(server: Server, body: str) -> None:
    before = server.track(0)
    headers = {
        "Origin": f"http://127.0.0.1:{server.port}",
        "X-Review-CSRF": server.csrf,
        "Content-Type": "application/json",
    }
    assert server.request("POST", "/api/tracks/0/edit", body, headers).status in (400, 422)
    assert server.track(0) == before


def test_a_read_only_review_changes_nothing(start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 2)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    server = start_review(root, "--read-only").enter()
    base = server.caption(0)["base"]
    bodies = {
        "tracks/0/edit": {"preset": "full", "text": "Mine.", "base": base},
        "tracks/0/approve": {"bases": {"full": base}},
        "tracks/0/exclude": {},
        "tracks/0/note": {"text": "x"},
        "tracks/0/ask": {"preset": "full"},
        "asks/1/take": {},
        "replace": {"kind": "replace", "find": "calm", "items": [{"id": 0, "preset": "full", "base": base}]},
        "undo": {},
    }
    for path, body in bodies.items():
        assert server.post(f"/api/{path}", body).status == 403, path
    server.get("/api/changes?since=0&open=0")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert server.interrupt() == 0


# -- connections --------------------------------------------------------------------------------------


def raw(server: Server, data: bytes, seconds: float = 20) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while block := connection.recv(65536):
                received += block
        return received


@pytest.mark.slow
def test_a_thousand_connections_do_not_stop_it(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this system does not allow a thousand connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held: list[socket.socket] = []
    try:
        for _ in range(1000):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
            connection.sendall(b"GET / HTTP/1.1\r\n")
            held.append(connection)
        started = time.monotonic()
        assert server.get("/api/session").status == 200
        assert time.monotonic() - started < 2
        open_now = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        assert open_now < 300
    finally:
        for connection in held:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_a_request_that_never_ends_is_ended(server: Server) -> None:
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX: "
    started = time.monotonic()
    assert raw(server, head.encode(), 30) == b""
    assert time.monotonic() - started < 15

    def drip(connection: socket.socket) -> None:  # a byte a second, which no time-out of a single read would end
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"a")
                time.sleep(1)

    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        threading.Thread(target=drip, args=(connection,), daemon=True).start()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""


@pytest.mark.slow
def test_a_body_that_never_ends_is_refused(server: Server) -> None:
    head = (
        f"POST /api/undo HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: http://127.0.0.1:{server.port}\r\n"
        f"Cookie: {server.cookie}\r\nX-Review-CSRF: {server.csrf}\r\nContent-Type: application/json\r\n"
    )
    assert b" 408 " in raw(server, f"{head}Content-Length: 1000\r\n\r\n{{".encode(), 40)
    large = b"x" * (9 << 20)
    assert b" 413 " in raw(server, f"{head}Content-Length: {len(large)}\r\n\r\n".encode() + large, 40)
    assert server.get("/api/session").status == 200


def test_only_this_machine_can_connect(server: Server) -> None:
    listening = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    ours = [
        line.split()[1] for line in listening[1:] if line.split()[1].endswith(f":{server.port:04X}") and " 0A " in line
    ]
    assert ours == [f"0100007F:{server.port:04X}"]


def test_a_port_in_use_and_missing_packages_are_errors(server: Server, dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "musicflamingo_cli", "review", str(dataset), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"port {server.port} cannot be used" in done.stderr
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['starlette'] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 3
    assert "pip install 'musicflamingo[review]'" in done.stderr


def test_it_ends_with_ctrl_c_while_sound_is_sent(start_review: StartReview, tmp_path: Path) -> None:
    write_tone(tmp_path / "long.wav", 300.0, rate=44100)
    server = start_review(tmp_path).enter()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = f"GET /api/tracks/0/audio HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {server.cookie}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        assert server.interrupt() == 0
    assert time.monotonic() - started < 8
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]
