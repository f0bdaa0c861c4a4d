"""Records in a file of JSON lines, appended one at a time, so that a run goes on where one stopped."""

from __future__ import annotations

from pathlib import Path

from tokcodec.errors import MediaError, OutputError
from tokcodec.evaluation.record import Key, Record


class RecordStore:
    """Records by key; the last one of a key counts.

    Args:
        path: Where they are kept; None keeps them in memory only. A file that is there is gone on with, and a last
            line that a killed run left unfinished is cut off.

    Raises:
        MediaError: The file holds something else.
        OutputError: It cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._records: dict[Key, Record] = {}
        if path is None:
            return
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines(), start=1):
                try:
                    record = Record.from_json(line.decode())
                except (MediaError, UnicodeDecodeError) as error:
                    raise MediaError(
                        f"line {number}: {error}", where=str(path), hint="name a new file, or one that eval wrote"
                    ) from error
                self._records[record.key] = record
            with path.open("ab") as file:
                if len(whole) < len(data):
                    if not data.startswith(b"{"):
                        raise MediaError("not a file of tokcodec eval", where=str(path), hint="name a new file")
                    file.truncate(len(whole))
        except OSError as error:
            raise OutputError(f"cannot be used: {error.strerror or error}", where=str(path)) from error

    def __len__(self) -> int:
        return len(self._records)

    def find(self, key: Key, *, lpips_sources: dict[str, str]) -> Record | None:
        """The record of this key, unless LPIPS was measured with other backbones, or without those there are now.

        Args:
            key: What shall have been measured.
            lpips_sources: Backbones that there are now; where there is none, any record will do.
        """
        record = self._records.get(key)
        if record is None:
            return None
        fits = all(not source or record.lpips_sources.get(name) == source for name, source in lpips_sources.items())
        return record if fits else None

    def add(self, record: Record) -> None:
        """Keep a record, and write its line.

        Raises:
            OutputError: The disk takes no more.
        """
        self._records[record.key] = record
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(record.to_json() + "\n")
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror or error}", where=str(self._path)) from error
