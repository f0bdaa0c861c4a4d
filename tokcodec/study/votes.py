"""Votes in SQLite: one row a vote, and nothing is ever deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from tokcodec.errors import MediaError, OutputError

VOTES_NAME = "votes.sqlite"
SCHEMA_VERSION = 1
APPLICATION_ID = 0x746F6B73
"""Tells SQLite files of a study from others ("toks")."""

Choice = Literal["left", "right", "equal"]
CHOICES: tuple[Choice, ...] = ("left", "right", "equal")

_SCHEMA = """
CREATE TABLE votes (
  id INTEGER PRIMARY KEY,
  rater TEXT NOT NULL,
  pair TEXT NOT NULL,
  clip TEXT NOT NULL,
  rate TEXT NOT NULL,
  left_codec TEXT NOT NULL,
  right_codec TEXT NOT NULL,
  choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'equal')),
  seconds REAL NOT NULL CHECK (seconds >= 0),
  voted_at TEXT NOT NULL,
  undone_at TEXT
);
CREATE UNIQUE INDEX one_vote_a_pair ON votes (rater, pair) WHERE undone_at IS NULL;
"""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One vote.

    Attributes:
        rater: Who voted.
        pair: Id of the pair.
        clip: Name.
        rate: Of the comparison.
        left_codec: What was shown on the left.
        right_codec: What was shown on the right.
        choice: The better side, or "equal".
        seconds: From the first picture to the vote.
        voted_at: UTC, ISO 8601.
    """

    rater: str
    pair: str
    clip: str
    rate: str
    left_codec: str
    right_codec: str
    choice: Choice
    seconds: float
    voted_at: str


class VoteStore:
    """The votes of a study; every call is a transaction of its own, so that several threads may share it.

    Args:
        path: The SQLite file; made if it is not there.

    Raises:
        MediaError: The file is another one, or of a later version.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            known = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if empty and version == 0:
                connection.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                    f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
            elif not known or version != SCHEMA_VERSION:
                raise MediaError(
                    f"holds votes of version {version}, not {SCHEMA_VERSION}" if known else "is not a file of votes",
                    where=str(path),
                    hint="use the version of tokcodec that wrote it, or move it away",
                )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=20.0)) as connection, connection:
                yield connection
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise OutputError(f"cannot be used: {error}", where=str(self._path)) from error
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise MediaError(f"is not a file of votes: {error}", where=str(self._path)) from error

    def add(self, vote: Vote) -> bool:
        """Store a vote.

        Returns:
            False where this rater has voted on this pair already; nothing is stored then.
        """
        try:
            with self._open() as connection:
                connection.execute(
                    "INSERT INTO votes (rater, pair, clip, rate, left_codec, right_codec, choice, seconds, voted_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        vote.rater,
                        vote.pair,
                        vote.clip,
                        vote.rate,
                        vote.left_codec,
                        vote.right_codec,
                        vote.choice,
                        vote.seconds,
                        vote.voted_at,
                    ),
                )
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                return False
            raise MediaError(f"no vote: {error}", where=str(self._path)) from error
        return True

    def undo(self, rater: str) -> str | None:
        """Take this rater's last vote back; the row stays, marked.

        Returns:
            Id of the pair; None where there is no vote to take back.
        """
        with self._open() as connection:
            row = connection.execute(
                "SELECT id, pair FROM votes WHERE rater = ? AND undone_at IS NULL ORDER BY id DESC LIMIT 1", (rater,)
            ).fetchone()
            if row is None:
                return None
            connection.execute("UPDATE votes SET undone_at = ? WHERE id = ?", (now(), row[0]))
            return str(row[1])

    def pairs_of(self, rater: str) -> set[str]:
        """Pairs that this rater has voted on."""
        with self._open() as connection:
            rows = connection.execute("SELECT pair FROM votes WHERE rater = ? AND undone_at IS NULL", (rater,))
            return {str(row[0]) for row in rows}

    def votes(self) -> list[Vote]:
        """All that were not taken back, in the order they were given."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT rater, pair, clip, rate, left_codec, right_codec, choice, seconds, voted_at "
                "FROM votes WHERE undone_at IS NULL ORDER BY id"
            ).fetchall()
        return [
            Vote(
                rater=row[0],
                pair=row[1],
                clip=row[2],
                rate=row[3],
                left_codec=row[4],
                right_codec=row[5],
                choice=cast(Choice, row[6]),
                seconds=row[7],
                voted_at=row[8],
            )
            for row in rows
        ]


def now() -> str:
    """The time, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
