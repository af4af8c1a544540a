"""What may not be in a tracked file: paths and hosts of one machine, unfinished places, large data."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SELF = Path(__file__).resolve()

LARGEST_FILE_BYTES = 400_000

HOME_FOLDERS = ("root", "home", "Users", "work", "mnt")
MACHINE_PATH = re.compile(r"(?<![\w.~*-])/(?:" + "|".join(HOME_FOLDERS) + r")/[A-Za-z]")
ADDRESS = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
# Loopback, any, and the networks that are reserved for documentation (RFC 5737).
HARMLESS_NETWORKS = [
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "0.0.0.0/32", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
]
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|raise NotImplemented" + r"Error")
CONFLICT = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
INDEX_OPTION = re.compile(r"^\s*(?:-i|--index-url|--extra-index-url|--find-links)\b", re.MULTILINE)


@cache
def tracked_files() -> tuple[Path, ...]:
    """The files of the checkout that git knows."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there are no tracked files to read")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listing.stdout.decode().split("\0") if name]
    return tuple(path for path in (ROOT / name for name in names) if path.is_file())


def _texts() -> list[tuple[Path, str]]:
    texts = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content and path != SELF:
            texts.append((path, content.decode("utf-8", errors="replace")))
    return texts


def _hits(pattern: re.Pattern[str]) -> list[str]:
    hits = []
    for path, text in _texts():
        if path.name == "LICENSE":
            continue
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            hits.append(f"{path.relative_to(ROOT)}:{line}: {match.group()}")
    return hits


def test_no_path_of_a_machine() -> None:
    assert _hits(MACHINE_PATH) == []


def test_no_address_of_a_machine() -> None:
    hits = [hit for hit in _hits(ADDRESS) if not _is_harmless(hit.rsplit(": ", 1)[1])]
    assert hits == []


def _is_harmless(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # four numbers that are no address
        return True
    return any(parsed in network for network in HARMLESS_NETWORKS)


def test_nothing_unfinished() -> None:
    assert _hits(UNFINISHED) == []


def test_no_conflict_markers() -> None:
    assert _hits(CONFLICT) == []


def test_the_lock_files_name_no_registry() -> None:
    locks = [path for path in tracked_files() if path.name.startswith("requirements")]
    assert locks, "the lock files are tracked"
    for lock in locks:
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text, f"{lock.name} names a host"
        assert not INDEX_OPTION.search(text), f"{lock.name} names an index"


def test_every_locked_package_has_a_hash() -> None:
    for lock in (path for path in tracked_files() if path.suffix == ".lock"):
        pinned = re.findall(r"^[A-Za-z0-9][^\s]*==[^\n]*\n", lock.read_text(encoding="utf-8"), re.MULTILINE)
        assert pinned
        assert all(line.endswith("\\\n") for line in pinned), f"{lock.name}: a package without --hash"


def test_no_large_file() -> None:
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes"
        for path in tracked_files()
        if path.stat().st_size > LARGEST_FILE_BYTES
    ]
    assert large == []


@pytest.mark.parametrize(
    "text", ["see /ro" + "ot/x", "open('/ho" + "me/me/x')", "cd /wo" + "rk/main", "/Us" + "ers/me/x"]
)
def test_the_check_sees_a_machine_path(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["the user's work/home", "https://example.org/home/page", "~/work/x"])
def test_the_check_allows_other_slashes(text: str) -> None:
    assert not MACHINE_PATH.search(text)
