"""Rate control without a network: what is asked, the search, the steering of chunks, the passes over a file."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokcodec.counts import StreamCounts
from tokcodec.errors import OutputError, UsageError
from tokcodec.passes import MOST_PASSES, Coded, find_pass
from tokcodec.rate import PROMISED, QualitySearch, Rate, RateReport, first_quality
from tokcodec.steering import MOST_TRIES, KeptFrames, Steering

LIMITS = (-8.0, 16.0)
SLOPE = 0.4


def test_what_is_asked():
    assert Rate(bits_per_pixel=0.5).bytes_for(pixels=1600, seconds=Fraction(9)) == 100
    assert Rate(kilobits_per_second=8.0).bytes_for(pixels=1600, seconds=Fraction(9)) == 9000
    assert Rate(max_bytes=77).bytes_for(pixels=1600, seconds=Fraction(9)) == 77
    for rate in (Rate(bits_per_pixel=0.03), Rate(kilobits_per_second=40.0), Rate(max_bytes=900)):
        size = rate.bytes_for(pixels=1000, seconds=Fraction(2))
        assert rate.reached(size, pixels=1000, seconds=Fraction(2)) == pytest.approx(rate.asked)  # type: ignore[arg-type]
    assert Rate(max_bytes=1).is_whole
    assert not Rate(bits_per_pixel=0.1).is_whole
    assert Rate(bits_per_pixel=0.1, multi_pass=True).is_whole


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"multi_pass": True},
        {"bits_per_pixel": 0.1, "max_bytes": 9},
        {"bits_per_pixel": 0.0},
        {"kilobits_per_second": -1.0},
        {"bits_per_pixel": math.inf},
        {"bits_per_pixel": math.nan},
        {"max_bytes": 9.5},
        {"bits_per_pixel": "0.1"},
        {"max_bytes": True},
    ],
)
def test_what_cannot_be_asked(values: dict[str, Any]):
    with pytest.raises(UsageError):
        Rate(**values)


def report(**changes: Any) -> RateReport:
    values: dict[str, Any] = {
        "unit": "bits_per_pixel",
        "asked": 0.02,
        "reached": 0.0205,
        "passes": 1.25,
        "lowest_quality": 2.0,
        "highest_quality": 3.5,
        "limit": None,
    }
    return RateReport(**values | changes)


def test_what_is_said():
    assert report().line() == "0.0205 bits per pixel, 0.02 asked; 1.2 passes, quality 2.00 to 3.50"
    assert report().notes() == ()
    assert report(unit="max_bytes", asked=900, reached=890.0).line().startswith("890 bytes, 900 allowed; ")
    assert "the highest quality takes no more" in report(reached=0.015, limit="highest").notes()[0]
    assert "the lowest quality takes as much" in report(reached=0.03, limit="lowest").notes()[0]
    assert "come in steps" in report(reached=0.0212).notes()[0]


def size_at(complexity: float, quality: float, *, wobble: float = 0.0) -> int:
    return max(1, round(complexity * math.exp(SLOPE * quality) * (1 + wobble * math.sin(40 * quality))))


@given(complexity=st.floats(50, 1e6), wanted=st.floats(1e3, 1e5), first=st.floats(-3, 9))
def test_the_search_finds_a_size_in_a_few_tries(complexity: float, wanted: float, first: float):
    search = QualitySearch(LIMITS)
    quality: float | None = first
    for number in range(6):
        if quality is None:
            break
        size = size_at(complexity, quality)
        search.add(quality, size)
        if abs(size / wanted - 1) < 0.03:
            assert number <= 4
            return
        quality = search.propose(wanted)
    reachable = size_at(complexity, LIMITS[0]) <= wanted <= size_at(complexity, LIMITS[1])
    assert not reachable, search.sizes
    assert max(search.sizes) == LIMITS[1] or min(search.sizes) == LIMITS[0]


def test_the_search_ends_where_sizes_come_in_steps():
    search = QualitySearch(LIMITS)
    quality: float | None = 2.0
    while quality is not None:
        assert len(search.sizes) < 40
        search.add(quality, 1000 if quality < 3.3 else 2000)
        quality = search.propose(1500)
    nearest = sorted(search.sizes, key=lambda q: abs(q - 3.3))[:2]
    assert {search.sizes[q] for q in nearest} == {1000, 2000}


def test_where_a_search_begins():
    assert first_quality(0.01, LIMITS) == pytest.approx(1.0)
    assert first_quality(0.04, LIMITS) > first_quality(0.02, LIMITS)
    assert first_quality(1e-9, LIMITS) >= LIMITS[0]
    assert first_quality(1e9, (0.0, 6.0)) == 6.0


def steer(complexities: list[float], share: float, *, first: float = 3.0) -> tuple[list[float], list[int], int]:
    """Deviation of the file at the end of each chunk, sizes of the chunks, and all tries."""
    steering = Steering(LIMITS, first=first)
    spent, asked, tries = 300, 0.0, 0
    deviations, sizes = [], []
    for complexity in complexities:
        asked += share
        search = steering.search(asked=asked, spent=spent)
        quality: float | None = steering.quality
        while quality is not None:
            tries += 1
            quality = search.add(quality, size_at(complexity, quality, wobble=0.01))
        assert len(search.sizes) <= MOST_TRIES
        sizes.append(search.sizes[search.best])
        spent += sizes[-1]
        steering.took(search, asked=asked, spent=spent)
        deviations.append(spent / asked - 1)
    return deviations, sizes, tries


@given(complexities=st.lists(st.floats(1e3, 2e4), min_size=1, max_size=60), share=st.floats(2e4, 6e4))
def test_the_file_is_near_the_rate_wherever_it_ends(complexities: list[float], share: float):
    deviations, _, _ = steer(complexities, share)
    assert all(abs(deviation) <= PROMISED for deviation in deviations), deviations


def test_a_steady_video_takes_one_try_a_chunk():
    _, _, tries = steer([5e3] * 40, 3e4)
    assert tries <= 44


def test_chunks_of_a_long_file_may_differ_in_size():
    complexities = [4e3, 8e3] * 60
    deviations, sizes, tries = steer(complexities, 3e4)
    assert abs(deviations[-1]) <= PROMISED
    late = sizes[-20:]
    assert max(late) > 1.4 * min(late), "half of the chunks are twice as hard; the quality stays, the size does not"
    assert max(sizes[:2]) < 1.2 * min(sizes[:2]), "while at first there is no room for that"
    assert tries < 2 * len(complexities)


def test_no_more_than_there_is_and_no_less():
    _, sizes, tries = steer([10.0] * 5, 1e6)
    assert sizes == [size_at(10.0, LIMITS[1], wobble=0.01)] * 5
    _, sizes, more = steer([1e6] * 5, 1e3)
    assert sizes == [size_at(1e6, LIMITS[0], wobble=0.01)] * 5
    assert max(tries, more) < 12, "after the first chunk the end is known"


def test_frames_are_kept_in_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tokcodec.steering.KEPT_IN_MEMORY_BYTES", 10)
    kept = KeptFrames()
    for frames in ([b"abcd", b"efgh", b"ijkl"], [b"xy"]):
        for frame in frames:
            kept.add(frame)
        assert list(kept) == list(kept) == frames
        kept.clear()
    assert list(kept) == []
    kept.close()


AROUND, SIDE = 500, 200
"""Bytes of a made-up file beside its chunks; packets among them."""


def made_up(complexity: float, *, wobble: float = 0.03, passes: list[float] | None = None) -> Any:
    def code(quality: float | None, sink: BinaryIO) -> Coded:
        quality = 3.0 if quality is None else quality
        if passes is not None:
            passes.append(quality)
        chunks = size_at(complexity, quality, wobble=wobble)
        sink.write(b"x" * (chunks + AROUND))
        counts = StreamCounts(frames=10, chunks=2, side_bytes=SIDE, chunk_bytes=chunks, seconds=Fraction(2))
        return Coded(quality=quality, size=chunks + AROUND, counts=counts, pixels=80000)

    return code


@given(complexity=st.floats(50, 3e3), max_bytes=st.integers(1, 60_000))
def test_never_more_bytes_than_allowed(complexity: float, max_bytes: int):
    passes: list[float] = []
    sink = io.BytesIO()
    lowest = size_at(complexity, LIMITS[0], wobble=0.03) + AROUND
    rate = Rate(max_bytes=max_bytes)
    try:
        coded, tried = find_pass(made_up(complexity, passes=passes), rate, sink, limits=LIMITS)
    except UsageError as error:
        said = str(error.hint)
        assert max_bytes < lowest, said
        assert str(lowest) in said
        assert sink.getvalue() == b""
        return
    assert len(sink.getvalue()) == coded.size <= max_bytes
    assert coded.quality in passes
    assert tried == (min(passes), max(passes))
    assert len(passes) <= MOST_PASSES + 1
    if 2 * lowest < max_bytes:
        most = size_at(complexity, LIMITS[1], wobble=0.03) + AROUND  # no quality has more
        assert coded.size >= 0.9 * min(max_bytes, most)


@given(rate=st.floats(0.2, 5.0))
def test_one_quality_for_a_rate(rate: float):
    sink = io.BytesIO()
    coded, _ = find_pass(made_up(1e3), Rate(bits_per_pixel=rate, multi_pass=True), sink, limits=LIMITS)
    assert 8 * (coded.size - SIDE) / 80000 == pytest.approx(rate, rel=PROMISED)
    assert len(sink.getvalue()) == coded.size


def test_a_sink_that_is_full():
    class Full(io.RawIOBase):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space"):
        find_pass(made_up(1e3), Rate(max_bytes=9000), Full(), limits=LIMITS)  # type: ignore[arg-type]
