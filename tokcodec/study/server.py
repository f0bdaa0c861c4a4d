"""The study's page, served to this machine only."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from tokcodec.errors import OutputError, TokcodecError, UsageError
from tokcodec.study.plan import Study, read_plan
from tokcodec.study.votes import CHOICES, VOTES_NAME, Choice, Vote, VoteStore, now

HOST = "127.0.0.1"
LONGEST_NAME = 64
_LARGEST_BODY = 4096
_PAGES = {
    "/": ("study.html", "text/html; charset=utf-8"),
    "/study.css": ("study.css", "text/css; charset=utf-8"),
    "/study.js": ("study.js", "text/javascript; charset=utf-8"),
}
_KINDS = {".mp4": "video/mp4", ".webm": "video/webm"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class StudyServer(ThreadingHTTPServer):
    """Serves one study; `serve_forever` runs it.

    Args:
        folder: The study's.
        port: 0 takes a free one.

    Raises:
        MediaError: The folder holds no study.
        OutputError: The port is taken, or votes cannot be stored.
    """

    daemon_threads = True

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder = folder
        self.study = read_plan(folder)
        self.store = VoteStore(folder / VOTES_NAME)
        self.media = {stimulus.id: folder / stimulus.file for stimulus in self.study.stimuli}
        self.media |= {Path(file).stem: folder / file for file in self.study.originals.values()}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OutputError(f"cannot listen there: {error.strerror}", where=f"{HOST}:{port}") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is nothing to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def next_pair(study: Study, store: VoteStore, rater: str) -> dict[str, Any]:
    """What to show this rater next, without a word on which codecs they are."""
    done = store.pairs_of(rater)
    order = study.order(rater)
    waiting = [pair for pair in order if pair.id not in done]
    progress = {"done": len(order) - len(waiting), "total": len(order)}
    if not waiting:
        return {**progress, "pair": None}
    left, right = study.sides(rater, waiting[0])
    original = study.originals.get(left.clip)
    return {
        **progress,
        "pair": waiting[0].id,
        "left": left.id,
        "right": right.id,
        "original": None if original is None else Path(original).stem,
        "frame_rate": left.frame_rate,
        "width": left.width,
        "height": left.height,
    }


def cast_vote(study: Study, store: VoteStore, values: dict[str, Any]) -> bool:
    """Store what the page sent; which codec was on which side is known here, not there.

    Returns:
        Whether it counted; not where the rater has voted on the pair already.

    Raises:
        UsageError: The values are no vote.
    """
    rater, choice, seconds = rater_of(values.get("rater")), values.get("choice"), values.get("seconds")
    if choice not in CHOICES:
        raise UsageError(f"{choice!r} is no choice")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise UsageError("the seconds are not a time")
    pair = study.pair(str(values.get("pair")))
    left, right = study.sides(rater, pair)
    return store.add(
        Vote(
            rater=rater,
            pair=pair.id,
            clip=left.clip,
            rate=left.rate,
            left_codec=left.codec,
            right_codec=right.codec,
            choice=cast(Choice, choice),
            seconds=round(float(seconds), 3),
            voted_at=now(),
        )
    )


def rater_of(value: object) -> str:
    """A rater's name, tidied.

    Raises:
        UsageError: It is none, too long, or not printable.
    """
    name = " ".join(value.split()) if isinstance(value, str) else ""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UsageError(f"a rater's name has 1 to {LONGEST_NAME} letters")
    return name


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "tokcodec-study"
    sys_version = ""
    server: StudyServer

    def do_GET(self) -> None:
        """Pages, clips, and what comes next."""
        if not self._is_local():
            return
        parts = urlsplit(self.path)
        if parts.path in _PAGES:
            name, kind = _PAGES[parts.path]
            self._answer(files(__package__).joinpath("assets", name).read_bytes(), kind)
        elif parts.path.startswith("/media/"):
            self._media(parts.path.removeprefix("/media/"))
        elif parts.path == "/api/next":
            self._json(lambda: self._next(parse_qs(parts.query).get("rater", [""])[0]))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Votes, and taking the last one back."""
        if not self._is_local():
            return
        length = self.headers.get("Content-Length", "")
        # Another site's form cannot send this type without asking first, and nobody answers.
        if self.headers.get_content_type() != "application/json" or not length.isdecimal():
            self.close_connection = True
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "wants JSON with its length")
            return
        if int(length) > _LARGEST_BODY:
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
            return
        body = self.rfile.read(int(length))
        try:
            values = json.loads(body)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "wants a JSON object")
        elif self.path == "/api/vote":
            self._json(lambda: {"counted": cast_vote(self.server.study, self.server.store, values)})
        elif self.path == "/api/undo":
            self._json(lambda: {"undone": self.server.store.undo(rater_of(values.get("rater")))})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def _next(self, rater: str) -> dict[str, Any]:
        return next_pair(self.server.study, self.server.store, rater_of(rater))

    def _is_local(self) -> bool:
        """Refuses names that some other site has pointed at this machine."""
        port = self.server.server_address[1]
        if self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}"):
            return True
        self.close_connection = True
        self._refuse(HTTPStatus.FORBIDDEN, "wrong host")
        return False

    def _media(self, name: str) -> None:
        path = self.server.media.get(name)
        if path is None or not path.is_file():
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such clip")
            return
        self._answer(path.read_bytes(), _KINDS.get(path.suffix, "application/octet-stream"))

    def _json(self, make: Callable[[], dict[str, Any]]) -> None:
        try:
            values = make()
        except UsageError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except TokcodecError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        else:
            self._answer(json.dumps(values).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._answer(json.dumps({"error": reason}).encode(), "application/json", status)

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing: only the console prints."""
