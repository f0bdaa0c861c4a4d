"""An opened media file -> decoded pictures and side packets, whatever state the file is in."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av import VideoFrame
from av.container import InputContainer

from tokcodec import interruption
from tokcodec.frames import cutoff, packets, probe
from tokcodec.frames.info import Packet, SideStream
from tokcodec.frames.streams import AV_ERRORS, ByteSource, describe
from tokcodec.frames.timing import TimestampRepair

# Side packets may be this far behind the video in a file; reading goes on so long after the last frame.
_INTERLEAVE_SECONDS = 2

# A reader that fails this often in a row has nothing more to give.
_MAX_READ_ERRORS = 16

TimedFrame = tuple[VideoFrame, int]
"""A decoded picture, and its repaired timestamp in the video's time base."""


class Demuxer:
    """Decodes one video stream and passes the packets of side streams; errors become notes."""

    def __init__(self, source: ByteSource, container: InputContainer, *, sides: dict[int, SideStream]) -> None:
        self._source = source
        self._container = container
        self._sides = sides
        self.stream = probe.pick_video(container, source.label)
        self.stream.thread_type = "AUTO"
        self.time_base = Fraction(self.stream.time_base or Fraction(1, 1000))
        self.frame_rate = probe.frame_rate_of(self.stream)
        self._missing_bytes = cutoff.missing_bytes(source)
        self.closed = False  # set by the owner: reading from a closed container would crash
        self._reset()

    def _reset(self) -> None:
        self._repair = TimestampRepair(time_base=self.time_base, frame_rate=self.frame_rate)
        self._bad_packets = 0
        self._first_bad: Fraction | None = None
        self._cut_packets = 0
        self._ended = False
        self._packet_bytes = 0
        self.first_packet = b""  # of the video; still images keep their EXIF in it
        self.error = ""

    def seek(self, target: int) -> bool:
        """Go to the keyframe at or before `target`, in ticks of the time base; False where that fails."""
        self._reset()
        try:
            self._container.seek(target, stream=self.stream)
        except AV_ERRORS:
            return False
        return True

    def read(self, *, end: int | None) -> Iterator[TimedFrame | Packet]:
        """Everything from here on, in the file's order.

        Args:
            end: Stop some way after this timestamp (ticks of the video's time base); None reads all.
        """
        for packet in self._packets():
            self._cut_packets += packet.is_corrupt
            index = packet.stream.index
            if index == self.stream.index:
                self.first_packet = self.first_packet or bytes(packet)
                yield from self._decode(packet)
                if end is not None and self._is_past(packet, end):
                    break
            elif index in self._sides:
                yield packets.from_av(packet)
            self._packet_bytes = packet.size if index == self.stream.index else self._packet_bytes
        else:
            self._ended = True
            if not self._missing_bytes:
                self._missing_bytes = cutoff.missing_y4m_bytes(self._source, self._packet_bytes)
        yield from self._decode(None)

    def _packets(self) -> Iterator[av.Packet[Any]]:
        errors = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux():
                    # Empty ones are PyAV's end marks, and would end the decoding here.
                    if packet.size:
                        errors = 0
                        yield packet
                        if self.closed:
                            return
                break
            except AV_ERRORS as error:
                errors += 1
                self.error = self.error or describe(error)
        interruption.check()  # a signal that was lost in a callback looks like the end of the file
        if self._source.error is not None:
            self.error = describe(self._source.error)

    def _is_past(self, packet: av.Packet[Any], end: int) -> bool:
        stamp = packet.dts if packet.dts is not None else packet.pts
        slack = round(_INTERLEAVE_SECONDS / self.time_base) if self._sides else 0
        return stamp is not None and stamp > end + slack

    def _decode(self, packet: av.Packet[Any] | None) -> Iterator[TimedFrame]:
        if self.closed:
            return
        try:
            frames = self.stream.decode(packet)
        except AV_ERRORS as error:
            self._bad_packets += 1
            self.error = self.error or describe(error)
            if self._first_bad is None and packet is not None and packet.pts is not None:
                self._first_bad = Fraction(packet.pts * self.time_base)
            return
        for frame in frames:
            probe.check_size(frame.width, frame.height, self._source.label)
            yield frame, self._repair.next(frame.pts, frame.dts)

    def damage(self) -> list[str]:
        """What was lost so far, for people."""
        notes = []
        if self._bad_packets:
            near = "" if self._first_bad is None else f", the first near {float(self._first_bad):.2f} s"
            notes.append(f"{self._bad_packets} video packet(s) could not be decoded{near}: {self.error}")
        elif self.error:
            notes.append(f"the file could not be read to its end: {self.error}")
        elif self._cut_packets:
            notes.append(f"{self._cut_packets} packet(s) are cut short")
        if self._ended and self._missing_bytes:
            notes.append(f"the file is cut off: at least {self._missing_bytes} bytes are missing at its end")
        return notes
