from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from musicflamingo_cli.sidecars import leftovers
from musicflamingo_cli.sidecars.claims import claim_file, claimed
from musicflamingo_cli.sidecars.leftovers import sweep


def test_a_claim_is_exclusive_and_leaves_nothing(tmp_path: Path) -> None:
    sidecar = tmp_path / "song.INFO"
    with claimed(sidecar) as mine:
        assert mine
        with claimed(sidecar) as again:
            assert not again
        assert claim_file(sidecar).exists()
    assert list(tmp_path.iterdir()) == []
    with claimed(sidecar) as mine:
        assert mine


def test_four_processes_share_without_doing_anything_twice(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from musicflamingo_cli.sidecars.claims import claimed\n"
        "folder = Path(sys.argv[1])\n"
        "for number in range(200):\n"
        "    with claimed(folder / f'{number}.INFO') as mine:\n"
        "        done = folder / f'{number}.done'\n"
        "        if mine and not done.exists():\n"
        "            done.open('x').close(); print(number)\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    did = [line for worker in workers for line in worker.communicate(timeout=60)[0].split()]
    assert all(worker.returncode == 0 for worker in workers)
    assert sorted(map(int, did)) == list(range(200))
    assert not list(tmp_path.glob(".*"))


def test_a_claim_dies_with_its_owner(tmp_path: Path) -> None:
    sidecar = tmp_path / "song.INFO"
    code = (
        "import sys, time; from pathlib import Path; from musicflamingo_cli.sidecars.claims import claimed\n"
        "with claimed(Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(sidecar)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    assert owner.stdout.readline() == "True\n"
    with claimed(sidecar) as mine:
        assert not mine
    sweep(claim_file(sidecar))
    assert claim_file(sidecar).exists(), "a living claim was swept away"
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert claim_file(sidecar).exists()
    with claimed(sidecar) as mine:
        assert mine
    assert not claim_file(sidecar).exists()


def test_a_dead_claim_is_swept(tmp_path: Path) -> None:
    file = claim_file(tmp_path / "song.INFO")
    file.touch()
    sweep(file)
    assert not file.exists()


def test_a_claim_that_is_made_during_a_sweep_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = claim_file(tmp_path / "song.INFO")
    file.touch()

    def others_first(descriptor: int) -> bool:
        file.unlink()
        file.write_text("of another process")
        return True

    monkeypatch.setattr(leftovers, "lock_now", others_first)
    sweep(file)
    assert file.read_text() == "of another process"


def test_a_folder_that_cannot_be_written_needs_no_claim(tmp_path: Path) -> None:
    with claimed(tmp_path / "gone" / "song.INFO") as mine:
        assert mine


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_users_claim_is_respected() -> None:
    code = (
        "import os, sys; from pathlib import Path; from musicflamingo_cli.sidecars.claims import claimed\n"
        "import filelock; os.setgid(65534); os.setuid(65534)\n"
        "for name in sys.argv[1:]:\n"
        "    with claimed(Path(name)) as mine: print(mine)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        ours, free = Path(folder) / "ours.INFO", Path(folder) / "free.INFO"
        with claimed(ours):
            command = [sys.executable, "-c", code, str(ours), str(free)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize("length", [230, 244, 245, 250])
def test_tracks_with_long_names_are_claimed(tmp_path: Path, length: int) -> None:
    sidecar, other = (tmp_path / (letter * length + ".INFO") for letter in "ab")
    with claimed(sidecar) as mine, claimed(sidecar) as again, claimed(other) as another:
        assert (mine, again, another) == (True, False, True)
    assert list(tmp_path.iterdir()) == []
