"""A file layer that remembers what was synced, and makes the folders that a power cut may leave behind.

While a recording is on, the os functions through which the log changes its folder are written down in
order (and done as well). At any point of the recording the power may go; then

* a file has what its last sync vouched for, and of what came later nothing, everything, or a part whose
  end is torn: cut at any byte, and the bytes before the cut possibly never written (zeros) or garbage;
* a folder has the names that its last sync vouched for, and of later changes any first few.

Nothing else is promised: a synced file without a synced name is gone, a renamed one is under its old name.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

DROP, KEEP, TEAR = "drop", "keep", "tear"


class _File:
    """Content over time: writes and truncations since it was made; `synced` of them are on the disk."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, bytes | None]] = []
        self.synced = 0
        self.size = 0

    def append(self, data: bytes) -> None:
        self.changes.append((self.size, data))
        self.size += len(data)

    def truncate(self, size: int) -> None:
        self.changes.append((size, None))
        self.size = size

    def content(self, upto: int) -> bytearray:
        out = bytearray()
        for position, data in self.changes[:upto]:
            if data is None:
                del out[position:]
                out += bytes(position - len(out))
            else:
                out[position : position + len(data)] = data
        return out

    def after_cut(self, how: str, rng: random.Random) -> bytes:
        durable, newest = self.content(self.synced), self.content(len(self.changes))
        if how == DROP or newest == durable:
            return bytes(durable)
        if how == KEEP:
            return bytes(newest)
        out = self.content(rng.randrange(self.synced, len(self.changes) + 1))
        safe = min((position for position, _ in self.changes[self.synced :]), default=len(out))
        if len(out) > safe:
            del out[rng.randrange(safe, len(out) + 1) :]
            if len(out) > safe and rng.random() < 0.5:
                start = rng.randrange(safe, len(out))
                length = len(out) - start
                out[start:] = bytes(length) if rng.random() < 0.5 else rng.randbytes(length)
        return bytes(out)


class _Folder:
    """Names over time; `synced` of the changes are on the disk."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, Any]] = []
        self.synced = 0

    def names(self, upto: int | None = None) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for kind, name, what in self.changes[:upto]:
            if kind == "link":
                names[name] = what
            elif kind == "unlink":
                names.pop(name, None)
            else:
                names[what] = names.pop(name)
        return names


class Disk:
    """Records the changes below `root`; `boundary` is called in front of each."""

    def __init__(self, root: Path, boundary: Callable[[Disk], None]) -> None:
        self.root = root
        self.changes = 0
        self._boundary = boundary
        self._top = _adopted(root)
        self._opened: dict[int, _File | _Folder] = {}
        self._lock = threading.RLock()

    @contextmanager
    def recording(self) -> Iterator[Disk]:
        """Until the end of the block."""
        notes = {
            "open": self._open, "close": self._close, "write": self._write, "writev": self._writev,
            "ftruncate": self._ftruncate, "fsync": self._sync, "fdatasync": self._sync,
            "rename": self._rename, "replace": self._rename, "unlink": self._unlink, "mkdir": self._mkdir,
        }  # fmt: skip
        wrapped = {
            name: self._wrapped(note, getattr(os, name)) for name, note in notes.items() if hasattr(os, name)
        }
        with mock.patch.multiple(os, **wrapped):
            yield self

    def after_cut(self, target: Path, how: str, rng: random.Random) -> None:
        """Make in `target` what the disk holds when the power goes now; `how` is DROP, KEEP or TEAR."""
        _write_out(self._top, target, how, rng)

    def _wrapped(self, note: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                return note(real, *arguments, **named)

        return call

    def _change(self) -> None:
        self._boundary(self)
        self.changes += 1

    def _find(self, path: Any) -> tuple[_Folder, str] | None:
        """(folder, name) of a path below the root."""
        if not isinstance(path, str | Path) or not Path(path).is_relative_to(self.root):
            return None
        *parents, name = ("", *Path(path).relative_to(self.root).parts)
        folder = self._top
        for part in parents[1:]:
            folder = folder.names()[part]
        return folder, name

    def _open(self, real: Callable[..., int], path: Any, flags: int, *rest: Any, **named: Any) -> int:
        place = self._find(path)
        if place is None:
            return real(path, flags, *rest, **named)
        folder, name = place
        known = folder.names().get(name) if name else folder
        if known is None and flags & os.O_CREAT:
            self._change()
            known = _File()
            folder.changes.append(("link", name, known))
        elif isinstance(known, _File) and flags & os.O_TRUNC and known.size:
            self._change()
            known.truncate(0)
        fd = real(path, flags, *rest, **named)
        assert known is not None, f"{path} was made behind the recording"
        self._opened[fd] = known
        return fd

    def _close(self, real: Callable[[int], None], fd: int) -> None:
        self._opened.pop(fd, None)
        real(fd)

    def _write(self, real: Callable[..., int], fd: int, data: Any) -> int:
        return self._writev(lambda fd, buffers: real(fd, buffers[0]), fd, [data])

    def _writev(self, real: Callable[..., int], fd: int, buffers: Any) -> int:
        file = self._opened.get(fd)
        if isinstance(file, _File):
            self._change()
        written = real(fd, buffers)
        if isinstance(file, _File):
            file.append(b"".join(bytes(buffer) for buffer in buffers)[:written])
        return written

    def _ftruncate(self, real: Callable[..., None], fd: int, size: int) -> None:
        file = self._opened.get(fd)
        if isinstance(file, _File):
            self._change()
            file.truncate(size)
        real(fd, size)

    def _sync(self, real: Callable[[int], None], fd: int) -> None:
        what = self._opened.get(fd)
        if what is None:
            real(fd)
            return
        self._change()
        what.synced = len(what.changes)

    def _rename(self, real: Callable[..., Any], source: Any, target: Any, **named: Any) -> None:
        places = self._find(source), self._find(target)
        if places[0] is not None and places[1] is not None:
            assert places[0][0] is places[1][0], "renamed into another folder"
            self._change()
            places[0][0].changes.append(("rename", places[0][1], places[1][1]))
        real(source, target, **named)

    def _unlink(self, real: Callable[..., None], path: Any, **named: Any) -> None:
        place = self._find(path)
        if place is not None and place[1] in place[0].names():
            self._change()
            place[0].changes.append(("unlink", place[1], None))
        real(path, **named)

    def _mkdir(self, real: Callable[..., None], path: Any, *rest: Any, **named: Any) -> None:
        # First, since it fails without the folder above, which then is made first.
        real(path, *rest, **named)
        place = self._find(path)
        if place is not None:
            self._change()
            place[0].changes.append(("link", place[1], _Folder()))


def _adopted(path: Path) -> _Folder:
    """What is there when a recording begins is on the disk."""
    made = _Folder()
    for child in sorted(path.iterdir()):
        what: Any
        if child.is_dir():
            what = _adopted(child)
        else:
            what = _File()
            what.append(child.read_bytes())
            what.synced = 1
        made.changes.append(("link", child.name, what))
    made.synced = len(made.changes)
    return made


def _write_out(folder: _Folder, target: Path, how: str, rng: random.Random) -> None:
    target.mkdir()
    last = len(folder.changes)
    upto = {DROP: folder.synced, KEEP: last, TEAR: rng.randint(folder.synced, last)}[how]
    for name, what in folder.names(upto).items():
        if isinstance(what, _Folder):
            _write_out(what, target / name, how, rng)
        else:
            (target / name).write_bytes(what.after_cut(how, rng))
