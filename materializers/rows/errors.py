"""What is raised when stored bytes are not what their table says."""

from __future__ import annotations

from schemas.errors import TidalError


class RowFormatError(TidalError):
    """A stored row or feed section that this version cannot read."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(
            f"{what}: {problem}; it was written by another version or is damaged: "
            "run the version that wrote it, or restore the partition from its changelog"
        )
        self.what = what
        self.problem = problem


def check_version(what: str, stored: int, known: int) -> None:
    """Raises:
    RowFormatError: ``stored`` is not the version that this code reads.
    """
    if stored != known:
        raise RowFormatError(what, f"version {stored}, expected {known}")
