"""A study from folders of decoded clips: each becomes a file that browsers play, with a name that tells nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from tokcodec.errors import UsageError
from tokcodec.evaluation.clips import DEFAULT_RATE, find_clips
from tokcodec.frames import Frame, open_video, open_writer
from tokcodec.output import atomic
from tokcodec.study.plan import MEDIA_FOLDER, Stimulus, Study, digest, make_pairs, write_plan

Format = Literal["mp4", "webm"]
ENCODERS: Mapping[str, tuple[str, dict[str, str]]] = {
    "mp4": ("libx264", {"pix_fmt": "yuv420p", "preset": "medium"}),
    "webm": ("libvpx-vp9", {"pix_fmt": "yuv420p"}),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A decoded clip before it becomes part of a study.

    Attributes:
        codec: Name.
        rate: As :class:`~tokcodec.study.plan.Stimulus`.
        clip: Name.
        path: Video file.
        bits_per_pixel: None where it is not known.
    """

    codec: str
    rate: str
    clip: str
    path: Path
    bits_per_pixel: float | None = None


@dataclass(frozen=True, kw_only=True)
class MakeSettings:
    """How a study is made.

    Attributes:
        seed: Of ids, sides and orders.
        format: Container: mp4 is H.264, webm is VP9.
        crf: Rate factor of that copy; small, so that it shows nothing of its own.
    """

    seed: str
    format: Format = "mp4"
    crf: float = 8.0


def folder_sources(folders: Mapping[str, Path]) -> list[Source]:
    """The clips that every folder has, by name without suffix.

    Args:
        folders: Of decoded clips, by codec.

    Raises:
        UsageError: Fewer than two codecs, or no name that all have.
        MediaError: A folder holds no video.
    """
    if len(folders) < 2:
        raise UsageError("a study needs two codecs or more", hint="--folder NAME=DIR --folder OTHER=DIR")
    found = {codec: {path.stem: path for path in find_clips(folder)} for codec, folder in folders.items()}
    names = sorted(set.intersection(*(set(clips) for clips in found.values())))
    if not names:
        raise UsageError("the folders have no clip of the same name", hint="name the clips alike in every folder")
    return [
        Source(codec=codec, rate="", clip=name, path=clips[name]) for codec, clips in found.items() for name in names
    ]


@contextmanager
def study_maker(out: Path, settings: MakeSettings, *, force: bool = False) -> Iterator[StudyMaker]:
    """A study that appears at `out` when everything is in it.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """
    with atomic(out, force=force) as part:
        (part / MEDIA_FOLDER).mkdir(parents=True)
        maker = StudyMaker(part, settings)
        yield maker
        maker.finish()


class StudyMaker:
    """Collects clips in a folder; made by :func:`study_maker`."""

    def __init__(self, folder: Path, settings: MakeSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._stimuli: list[Stimulus] = []
        self._originals: dict[str, str] = {}
        self.notes: list[str] = [f"shown as {settings.format}, crf {settings.crf:g}, in step and in a loop"]
        self.study: Study | None = None

    def add(self, source: Source) -> None:
        """Copy a clip into the study.

        Raises:
            MediaError: It cannot be read as video.
        """
        name = digest(self._settings.seed, "clip", source.codec, source.rate, source.clip).hex()[:16]
        copied = self._copy(source.path, name)
        self._stimuli.append(
            dataclasses.replace(
                copied, codec=source.codec, rate=source.rate, clip=source.clip, bits_per_pixel=source.bits_per_pixel
            )
        )

    def add_original(self, clip: str, path: Path) -> None:
        """Show raters the original of a clip too.

        Raises:
            UsageError: It differs from the decoded clips in size or length.
            MediaError: It cannot be read as video.
        """
        copied = self._copy(path, digest(self._settings.seed, "original", clip).hex()[:16])
        for other in (stimulus for stimulus in self._stimuli if stimulus.clip == clip):
            if (other.width, other.height, other.frames) != (copied.width, copied.height, copied.frames):
                raise UsageError(
                    f"the original of {clip} is {copied.frames} frames of {copied.width}x{copied.height}, "
                    f"{other.codec}'s is {other.frames} of {other.width}x{other.height}"
                )
        self._originals[clip] = copied.file

    def _copy(self, path: Path, name: str) -> Stimulus:
        file = f"{MEDIA_FOLDER}/{name}.{self._settings.format}"
        codec, options = ENCODERS[self._settings.format]
        count = 0
        with open_video(path, side_streams=False) as reader:
            rate = reader.info.frame_rate or DEFAULT_RATE
            # A clock without the gaps of the source: both sides of a pair show frame for frame.
            info = dataclasses.replace(reader.info, time_base=1 / Fraction(rate), frame_rate=rate, side_streams=())
            with open_writer(
                self._folder / file, info, codec=codec, crf=self._settings.crf, options=options, label=str(path)
            ) as writer:
                for count, frame in enumerate((item for item in reader if isinstance(item, Frame)), start=1):
                    writer.write_frame(Frame(pixels=frame.pixels, pts=count - 1))
        return Stimulus(
            id=name,
            codec="",
            rate="",
            clip="",
            file=file,
            bits_per_pixel=None,
            width=info.width,
            height=info.height,
            frames=count,
            frame_rate=float(rate),
        )

    def finish(self) -> None:
        """Pair the clips and write the plan.

        Raises:
            UsageError: There is no pair, or two clips of a pair differ.
        """
        self.study = Study(
            seed=self._settings.seed,
            stimuli=self._stimuli,
            pairs=make_pairs(self._stimuli),
            originals=self._originals,
            notes=self.notes,
        )
        write_plan(self._folder, self.study)


def make_study(
    sources: Sequence[Source],
    out: Path,
    settings: MakeSettings,
    *,
    originals: Mapping[str, Path] | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Study:
    """Make a study of clips that are there.

    Args:
        sources: All clips.
        out: The study's folder.
        settings: How.
        originals: Video by clip, where raters shall see it.
        force: Whether an existing file may be replaced.
        say: Gets a line for each clip.

    Raises:
        UsageError: Clips of a pair differ, or there is no pair.
        MediaError: A clip cannot be read.
        OutputError: `out` exists, or cannot be written.
    """
    with study_maker(out, settings, force=force) as maker:
        for source in sources:
            say(f"{source.clip}, {source.codec}")
            maker.add(source)
        for clip, path in (originals or {}).items():
            maker.add_original(clip, path)
    if maker.study is None:
        raise UsageError("the study was not finished")
    return maker.study
