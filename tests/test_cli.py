"""The command line. What a process decides (pipes, signals, imports) is typed, what it says of errors is called."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import TOKCODEC, called, typed
from media import make_film, make_video

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film, and its `.tok`."""
    place = tmp_path_factory.mktemp("cli")
    make_film(place / "in.mkv")
    done = typed("encode", place / "in.mkv", place / "out.tok", "--chunk-frames", "5", "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["frames"] == 18
    assert values["tok_bytes"] == (place / "out.tok").stat().st_size
    assert done.stderr == b"", "no progress bar in a pipe"
    return place


def test_encode_verify_info_decode(folder: Path, tmp_path: Path):
    verified = typed("verify", folder / "out.tok")
    assert verified.returncode == 0
    assert b"every chunk is whole" in verified.stdout
    info = typed("info", folder / "out.tok", "--json")
    assert info.returncode == 0
    values = json.loads(info.stdout)
    assert (values["frames"], values["chunks"], values["complete"]) == (18, 4, True)
    decoded = typed("decode", folder / "out.tok", tmp_path / "out.mkv", "--codec", "ffv1", "-v")
    assert decoded.returncode == 0, decoded.stderr
    assert b"18 of " in decoded.stdout
    assert b"device " in decoded.stderr
    quiet = typed("decode", folder / "out.tok", tmp_path / "quiet.mp4", "-q", "--crf", "30", "-o", "tune=grain")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")


def test_pipes(folder: Path, tmp_path: Path):
    y4m = tmp_path / "in.y4m"
    make_video(y4m, codec="wrapped_avframe", container="yuv4mpegpipe", count=3)
    encoded = typed("encode", "-", "-", stdin=y4m.read_bytes())
    assert encoded.returncode == 0, encoded.stderr
    assert encoded.stdout.startswith(b"\x8eTOK")
    assert b"bits per pixel" in encoded.stderr, "results give way to the data"
    checked = typed("verify", "-", stdin=encoded.stdout)
    assert checked.returncode == 0
    decoded = typed("decode", "-", "-", stdin=encoded.stdout)
    assert decoded.returncode == 0, decoded.stderr
    assert decoded.stdout.startswith(b"YUV4MPEG2")


def test_damaged_files_give_what_is_left_and_say_so(folder: Path, tmp_path: Path):
    data = bytearray((folder / "out.tok").read_bytes())
    cut = tmp_path / "cut.tok"
    cut.write_bytes(data[: len(data) * 2 // 3])
    for words in (("verify", cut), ("info", cut), ("decode", cut, tmp_path / "cut.mkv")):
        done = typed(*words)
        assert done.returncode == 10, done.stderr
        assert re.search(rb"note: lost: byte \d+: ", done.stderr)
        assert b"hint: " in done.stderr
    assert (tmp_path / "cut.mkv").exists()


def test_every_failure_has_its_code_and_a_hint(folder: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("not a video")
    flipped = bytearray((folder / "out.tok").read_bytes())
    flipped[40] ^= 1
    (tmp_path / "flipped.tok").write_bytes(flipped)
    future = bytearray((folder / "out.tok").read_bytes())
    future[8] = 9
    import zlib

    future[12:16] = zlib.crc32(bytes(future[:12])).to_bytes(4, "little")
    (tmp_path / "future.tok").write_bytes(future)
    cases = [
        (2, ("encode", folder / "in.mkv")),
        (2, ("encode", folder / "in.mkv", tmp_path / "a.tok", "--quality", "9")),
        (2, ("encode", folder / "in.mkv", tmp_path / "a.tok", "--chunk-frames", "4")),
        (2, ("decode", folder / "out.tok", tmp_path / "a.xyz")),
        (3, ("encode", text, tmp_path / "a.tok")),
        (3, ("encode", tmp_path / "none.mp4", tmp_path / "a.tok")),
        (3, ("info", tmp_path / "none.tok")),
        (4, ("decode", text, tmp_path / "a.mp4")),
        (4, ("verify", tmp_path / "flipped.tok")),
        (5, ("info", tmp_path / "future.tok")),
        (6, ("encode", folder / "in.mkv", tmp_path / "a.tok", "--model", "nonesuch")),
        (6, ("decode", folder / "out.tok", tmp_path / "a.mp4", "--weights", text)),
        (7, ("encode", folder / "in.mkv", folder / "out.tok")),
        (7, ("encode", folder / "in.mkv", tmp_path / "none" / "a.tok")),
        (8, ("encode", folder / "in.mkv", tmp_path / "a.tok", "--device", "abacus")),
    ]
    before = sorted(tmp_path.iterdir())
    for code, words in cases:
        done = called(*words)
        assert done.returncode == code, (words, done.stderr)
        assert b"Traceback" not in done.stderr
        assert b"error: " in done.stderr.lower()
        assert b"hint: " in done.stderr or b"Try " in done.stderr, (words, done.stderr)
        assert b".part" not in done.stderr, "temporary names are nobody's business"
    assert sorted(tmp_path.iterdir()) == before, "a failed run leaves nothing behind"


def test_help_names_the_exit_codes_and_needs_nothing_heavy(folder: Path):
    done = typed("--help")
    assert done.returncode == 0
    for code in (0, 2, 10, 130):
        assert re.search(rf"\b{code} ".encode(), done.stdout)
    assert typed().returncode == 2
    assert typed("--version").stdout.startswith(b"tokcodec ")
    script = (
        "import sys; sys.argv = ['tokcodec', *sys.argv[1:]]\n"
        "from tokcodec.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'av', 'numpy', 'skimage', 'scipy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    for words in (["--help"], ["encode", "--help"], ["info", str(folder / "out.tok")]):
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


def test_coding_loads_no_compiler(folder: Path, tmp_path: Path):
    """Torch's takes a second and more to load; what codes chunks beside each other loads as much."""
    script = (
        "import sys, tokcodec\n"
        "tokcodec.decode(sys.argv[1], sys.argv[2] + '/a.mkv')\n"
        "tokcodec.encode(sys.argv[2] + '/a.mkv', sys.argv[2] + '/b.tok', quality=1)\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    command = [sys.executable, "-c", script, str(folder / "out.tok"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["encode", "eval"])
def test_help_says_that_effort_0_leaves_first_pictures_aside(command: str, monkeypatch: pytest.MonkeyPatch):
    """Pictures and residuals have the bits that the quality asks for, wherever they need them."""
    monkeypatch.setenv("COLUMNS", "1000")
    done = called(command, "--help")
    assert done.returncode == 0
    assert b"0: the same bits everywhere, but for first pictures and residuals; 1:" in b" ".join(done.stdout.split())


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "tokcodec", "--version"], capture_output=True, check=False)
    assert done.returncode == 0


def test_errors_as_json(tmp_path: Path):
    done = typed("verify", tmp_path / "none.tok", "--json")
    assert done.returncode == 3
    assert json.loads(done.stderr)["error"]["exit_code"] == 3


def test_a_reader_that_goes_away_is_no_error(folder: Path):
    for words in (("info", folder / "out.tok"), ("decode", folder / "out.tok", "-")):
        done = subprocess.run(
            f"{TOKCODEC} {' '.join(map(str, words))} | head -c 1 >{os.devnull}; exit ${{PIPESTATUS[0]}}",
            shell=True,
            executable="/bin/bash",
            capture_output=True,
            check=False,
            timeout=100,
        )
        assert done.returncode in (0, 141)
        assert done.stderr == b"" or b"bits per pixel" in done.stderr


def test_input_and_output_must_differ(folder: Path, tmp_path: Path):
    copy = tmp_path / "film.mkv"
    copy.write_bytes((folder / "in.mkv").read_bytes())
    done = typed("encode", copy, copy, "--force")
    assert done.returncode == 2
    assert b"same file" in done.stderr
    assert copy.read_bytes() == (folder / "in.mkv").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    done = typed("encode", copy, tmp_path / "pipe", "--force")
    assert done.returncode == 7
    assert (tmp_path / "pipe").is_fifo()


def test_a_terminated_run_leaves_no_output(tmp_path: Path):
    make_video(tmp_path / "long.mp4", count=200, size=(320, 240))
    command = [TOKCODEC, "encode", tmp_path / "long.mp4", tmp_path / "a.tok"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            if list(tmp_path.glob(".tokcodec-*.part")):
                break
            time.sleep(0.02)
        else:
            pytest.fail("the encoder never began")
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert [p.name for p in tmp_path.iterdir()] == ["long.mp4"]


def test_a_termination_that_was_swallowed_is_raised_again():
    program = """
import os, signal, time
import tokcodec.cli as cli
from tokcodec import interruption

def swallows(**_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException:
        print("swallowed", flush=True)
    time.sleep(60)

cli.app, interruption._AGAIN_SECONDS = swallows, 0.2
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (143, "swallowed\n"), done.stderr


@pytest.mark.parametrize(
    ("number", "read_bytes"), [(signal.SIGTERM, 0), (signal.SIGINT, 20_000), (signal.SIGTERM, 40_000)]
)
def test_a_signal_that_is_lost_in_a_callback_makes_no_output(tmp_path: Path, number: int, read_bytes: int):
    """PyAV prints what a read raises and takes it for the end of the file."""
    make_video(tmp_path / "long.mkv", count=60, size=(320, 240))
    assert (tmp_path / "long.mkv").stat().st_size > 45_000
    program = f"""
import os, sys
import tokcodec.cli as cli
from tokcodec.frames.streams import ByteSource

read, to_come = ByteSource.read, [{int(number)}]

def interrupted(self, size):
    if to_come and self.read_bytes >= {read_bytes}:
        os.kill(os.getpid(), to_come.pop())
    return read(self, min(size, 10_000))

ByteSource.read = interrupted
sys.argv = ["tokcodec", "encode", "long.mkv", "a.tok", "--effort", "0"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=tmp_path, timeout=100, check=False)
    assert done.returncode == 128 + number, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["long.mkv"]


def test_demo(tmp_path: Path):
    done = typed("demo", "--out", tmp_path / "demo", "--seconds", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["psnr_db"] > 18
    for name in ("original", "tok", "decoded", "picture"):
        assert Path(values[name]).stat().st_size > 0
    again = called("demo", "--out", tmp_path / "demo", "--seconds", "0.5")
    assert again.returncode == 7, "nothing is replaced unasked"
    for name in ("tokcodec-demo", "tokcodec-demo-2"):
        again = called("demo", "--seconds", "0.2", cwd=tmp_path)
        assert b"PSNR" in again.stdout
        assert len(list((tmp_path / name).iterdir())) == 4


def test_info_of_the_model():
    done = typed("info", "--model", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["decoder_flops_per_pixel"] < 50_000
    vivid, light = values["post_filters"]
    assert (vivid["name"], light["name"]) == ("base-vivid", "light")
    assert 0 < 4 * light["flops_per_pixel"] < vivid["flops_per_pixel"] < 20_000
    assert len(values["sha256"]) == 64


def test_the_readme_examples_run(folder: Path, tmp_path: Path):
    """Every Python block and every `tokcodec` line of the README, in order, in one folder."""
    (tmp_path / "in.mp4").write_bytes(b"")
    make_video(tmp_path / "in.mp4", count=9)
    (tmp_path / "films").mkdir()
    make_video(tmp_path / "films" / "a.mp4", count=5, size=(96, 80))
    blocks = re.findall(r"```(python|console)\n(.*?)```", README, flags=re.DOTALL)
    assert {kind for kind, _ in blocks} == {"python", "console"}
    ran = 0
    for kind, block in blocks:
        if kind == "python":
            done = subprocess.run(
                [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, timeout=250, check=False
            )
            assert done.returncode == 0, (block, done.stderr)
            ran += 1
            continue
        for line in block.splitlines():
            match = re.match(r"\$ tokcodec (.*?)(?:\s+#.*)?$", line)
            if match and not match[1].startswith(("demo", "train")):
                done = called(*match[1].split(), cwd=tmp_path)
                assert done.returncode == 0, (line, done.stderr)
                ran += 1
    assert ran >= 8
