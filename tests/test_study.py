"""`tokcodec study`: making, showing, voting in a browser, scoring."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import math
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from browser import chromium, complaints
from command_line import called, typed
from media import make_video

from tokcodec.errors import MediaError, OutputError, UsageError
from tokcodec.study.make import MakeSettings, Source, folder_sources, make_study
from tokcodec.study.plan import Study, read_plan
from tokcodec.study.score import ELO_PER_UNIT, score_votes, strengths
from tokcodec.study.server import StudyServer
from tokcodec.study.votes import VOTES_NAME, Vote, VoteStore, now

CODECS = ("ant", "owl", "cow")
CLIPS = ("lake", "hill", "road", "wood")
TRUE_ELO = {"ant": 1500.0, "owl": 1750.0, "cow": 1250.0}
"""What the simulated raters prefer: owl, then ant, then cow."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips for each codec."""
    place = tmp_path_factory.mktemp("clips")
    for number, codec in enumerate(CODECS):
        (place / codec).mkdir()
        for clip in CLIPS:
            make_video(place / codec / f"{clip}.mp4", count=4, options={"crf": str(20 + 10 * number)})
    return place


@pytest.fixture
def study(sources: Path, tmp_path: Path) -> Path:
    """A study of three codecs on four clips."""
    out = tmp_path / "study"
    folders = {codec: sources / codec for codec in CODECS}
    make_study(folder_sources(folders), out, MakeSettings(seed="seed"))
    return out


@pytest.fixture
def server(study: Path) -> Iterator[StudyServer]:
    with StudyServer(study) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(server: StudyServer, path: str, values: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    body = None if values is None else json.dumps(values)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if values is None else "POST", path, body, {"Content-Type": "application/json", **named})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, json.loads(data) if answer.headers.get_content_type() == "application/json" else data


def preferred(left: str, right: str, random: np.random.Generator) -> str:
    """What a rater of `TRUE_ELO` says."""
    chance = 1 / (1 + 10 ** ((TRUE_ELO[right] - TRUE_ELO[left]) / 400))
    return "left" if random.random() < chance else "right"


# The plan and its clips


def test_every_two_codecs_meet_on_every_clip_and_names_tell_nothing(study: Path):
    plan = read_plan(study)
    assert len(plan.pairs) == len(CLIPS) * 3
    met = {
        (plan.stimulus(pair.first).clip, frozenset({plan.stimulus(pair.first).codec, plan.stimulus(pair.second).codec}))
        for pair in plan.pairs
    }
    assert met == {(clip, frozenset(two)) for clip in CLIPS for two in itertools.combinations(CODECS, 2)}
    names = {path.stem for path in (study / "media").iterdir()}
    assert names == {stimulus.id for stimulus in plan.stimuli}
    assert not any(word in name for name in names for word in (*CODECS, *CLIPS))
    with av.open(str(study / plan.stimuli[0].file)) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in file.decode(video=0)) == 4


def test_sides_and_orders_are_drawn_for_each_rater_and_stay(study: Path):
    plan = read_plan(study)
    for rater in ("anna", "bert"):
        assert plan.order(rater) == read_plan(study).order(rater)
    assert plan.order("anna") != plan.order("bert")
    first_left = [
        plan.sides(f"rater {number}", pair)[0].id == pair.first for number in range(100) for pair in plan.pairs
    ]
    assert 0.45 < sum(first_left) / len(first_left) < 0.55
    other = dataclasses.replace(plan, seed="another")
    assert [other.sides("anna", pair) for pair in plan.pairs] != [plan.sides("anna", pair) for pair in plan.pairs]


def test_clips_of_a_pair_must_be_alike(sources: Path, tmp_path: Path):
    (tmp_path / "dog").mkdir()
    make_video(tmp_path / "dog" / "lake.mp4", count=5)
    with pytest.raises(UsageError, match="lake differs between ant and dog in frames: 4 and 5"):
        make_study(
            folder_sources({"ant": sources / "ant", "dog": tmp_path / "dog"}), tmp_path / "out", MakeSettings(seed="x")
        )
    assert not (tmp_path / "out").exists(), "nothing half made stays"
    (tmp_path / "dog" / "lake.mp4").rename(tmp_path / "dog" / "other.mp4")
    with pytest.raises(UsageError, match="no clip of the same name"):
        folder_sources({"ant": sources / "ant", "dog": tmp_path / "dog"})
    with pytest.raises(UsageError, match="two codecs or more"):
        folder_sources({"ant": sources / "ant"})


def test_pairs_are_of_one_rate(sources: Path, tmp_path: Path):
    some = [
        Source(codec=codec, rate=rate, clip="lake", path=sources / codec / "lake.mp4", bits_per_pixel=float(rate))
        for codec in ("ant", "owl")
        for rate in ("0.01", "0.03")
    ]
    made = make_study(some, tmp_path / "out", MakeSettings(seed="x"))
    assert sorted(made.stimulus(pair.first).rate for pair in made.pairs) == ["0.01", "0.03"]
    assert all(made.stimulus(pair.first).rate == made.stimulus(pair.second).rate for pair in made.pairs)


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path, study: Path):
    with pytest.raises(MediaError, match="cannot be read"):
        read_plan(tmp_path)
    values = json.loads((study / "study.json").read_text())
    for change in ({"version": 99}, {"format": "other"}, {"pairs": [{"id": "p", "first": "none", "second": "none"}]}):
        (study / "study.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(MediaError, match="is not a study"):
            read_plan(study)


# Votes


def vote(rater: str, left: str, right: str, choice: Any, pair: str = "p1", rate: str = "") -> Vote:
    return Vote(
        rater=rater,
        pair=pair,
        clip="lake",
        rate=rate,
        left_codec=left,
        right_codec=right,
        choice=choice,
        seconds=1.0,
        voted_at=now(),
    )


def test_votes_are_kept_once_and_undone_without_being_lost(tmp_path: Path):
    store = VoteStore(tmp_path / VOTES_NAME)
    assert store.add(vote("anna", "ant", "owl", "left"))
    assert not store.add(vote("anna", "ant", "owl", "right")), "one vote a rater and pair"
    assert store.add(vote("bert", "ant", "owl", "right"))
    assert VoteStore(tmp_path / VOTES_NAME).undo("anna") == "p1"
    assert store.undo("anna") is None
    assert store.undo("nobody") is None
    assert [one.rater for one in store.votes()] == ["bert"]
    assert store.add(vote("anna", "ant", "owl", "equal"))
    assert store.pairs_of("anna") == {"p1"}
    with sqlite3.connect(tmp_path / VOTES_NAME) as connection:
        assert connection.execute("SELECT count(*) FROM votes").fetchone() == (3,), "the row that was undone stays"
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_other_files_are_not_taken_for_votes(tmp_path: Path):
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE something (x)")
    with pytest.raises(MediaError, match="is not a file of votes"):
        VoteStore(tmp_path / "other.sqlite")
    VoteStore(tmp_path / "later.sqlite")
    with sqlite3.connect(tmp_path / "later.sqlite") as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(MediaError, match="version 2, not 1"):
        VoteStore(tmp_path / "later.sqlite")
    (tmp_path / "text.sqlite").write_text("This is no database at all, only a text." * 40)
    with pytest.raises(MediaError, match="is not a file of votes"):
        VoteStore(tmp_path / "text.sqlite")


# The score


def test_strengths_are_the_maximum_of_the_likelihood():
    wins = np.array([[[0, 30, 5], [10, 0, 7], [5, 21, 0]]], dtype=float)
    found = (strengths(wins)[0] - 1500) / ELO_PER_UNIT

    def likelihood(values: Any) -> float:
        return sum(
            wins[0, i, j] * -math.log1p(math.exp(values[j] - values[i])) for i in range(3) for j in range(3) if i != j
        )

    best = likelihood(found)
    for step in (1e-3, -1e-3):
        for index in range(3):
            moved = found.copy()
            moved[index] += step
            assert likelihood(moved) < best
    two = strengths(np.array([[[0, 10.0], [1.0, 0]]]))[0]
    assert two[0] - two[1] == pytest.approx(400), "ten to one is 400 points"
    assert two.mean() == pytest.approx(1500)


def test_a_tie_is_half_a_win_and_one_sided_votes_stay_finite():
    ties = score_votes([vote("anna", "ant", "owl", "equal", pair=f"p{i}") for i in range(10)], resamples=50)[0]
    assert [round(one.elo, 6) for one in ties.codecs] == [1500, 1500]
    assert [one.ties for one in ties.codecs] == [10, 10]
    assert ties.left_share is None
    swept = score_votes([vote("anna", "ant", "owl", "left", pair=f"p{i}") for i in range(10)], resamples=50)[0]
    assert [one.codec for one in swept.codecs] == ["ant", "owl"]
    assert (swept.codecs[0].wins, swept.codecs[0].losses, swept.codecs[1].losses) == (10, 0, 10)
    # Ten wins and the one tie that is always added: 10.5 to 0.5.
    assert swept.codecs[0].elo - swept.codecs[1].elo == pytest.approx(400 * math.log10(21))
    assert swept.left_share == 1


def test_rates_are_scored_apart_and_strangers_refused():
    some = [
        vote("anna", "ant", "owl", "left", rate="0.01"),
        vote("anna", "ant", "owl", "right", pair="p2", rate="0.03"),
    ]
    low, high = score_votes(some, resamples=20)
    assert (low.rate, low.codecs[0].codec, high.rate, high.codecs[0].codec) == ("0.01", "ant", "0.03", "owl")
    with pytest.raises(UsageError, match="never compared"):
        score_votes([vote("a", "ant", "owl", "left"), vote("a", "cow", "dog", "left", pair="p2")])
    with pytest.raises(UsageError, match="no votes"):
        score_votes([])


def simulate(plan: Study, raters: int, choose: Callable[[str, str], Any]) -> list[Vote]:
    votes = []
    for number in range(raters):
        for pair in plan.order(rater := f"rater {number}"):
            left, right = plan.sides(rater, pair)
            votes.append(vote(rater, left.codec, right.codec, choose(left.codec, right.codec), pair=pair.id))
    return votes


def test_intervals_hold_the_truth_and_raters_at_random_overlap(study: Path):
    plan = read_plan(study)
    random = np.random.default_rng(7)
    known = score_votes(simulate(plan, 20, lambda left, right: preferred(left, right, random)), resamples=300)[0]
    assert [one.codec for one in known.codecs] == ["owl", "ant", "cow"]
    for one in known.codecs:
        assert one.low < TRUE_ELO[one.codec] < one.high
    assert known.codecs[0].low > known.codecs[1].high > known.codecs[1].low > known.codecs[2].high
    assert known.beats["owl > cow"] == 1
    blind = score_votes(simulate(plan, 20, lambda *_: random.choice(["left", "right", "equal"])), resamples=300)[0]
    low, high = max(one.low for one in blind.codecs), min(one.high for one in blind.codecs)
    assert low < high, "at random every interval overlaps every other"
    assert all(0.02 < share < 0.98 for share in blind.beats.values())
    again = score_votes(simulate(plan, 2, lambda *_: "left"), resamples=30)[0]
    assert again.left_share == 1, "who always presses one key shows"


# The server


def test_the_page_is_not_told_codecs_and_votes_know_them(server: StudyServer, study: Path):
    status, shown = ask(server, "/api/next?rater=anna")
    assert status == 200
    assert not any(word in json.dumps(shown) for word in (*CODECS, *CLIPS))
    left, right = (server.study.stimulus(shown[side]) for side in ("left", "right"))
    sent = {"rater": " anna ", "pair": shown["pair"], "choice": "right", "seconds": 2.5}
    assert ask(server, "/api/vote", sent) == (200, {"counted": True})
    assert ask(server, "/api/vote", sent) == (200, {"counted": False})
    (stored,) = server.store.votes()
    assert (stored.left_codec, stored.right_codec, stored.choice) == (left.codec, right.codec, "right")
    assert (stored.rater, stored.clip, stored.seconds) == ("anna", left.clip, 2.5)
    assert ask(server, "/api/next?rater=anna")[1]["done"] == 1
    assert ask(server, "/api/next?rater=bert")[1]["done"] == 0
    assert ask(server, "/api/undo", {"rater": "anna"}) == (200, {"undone": shown["pair"]})
    assert ask(server, "/api/next?rater=anna")[1]["pair"] == shown["pair"], "it comes back at once"


def test_the_server_refuses_what_is_not_for_it(server: StudyServer):
    assert server.url.startswith("http://127.0.0.1:")
    good = {"rater": "anna", "pair": "p0001", "choice": "left", "seconds": 1}
    for change in (
        {"choice": "up"},
        {"pair": "p9999"},
        {"seconds": -1},
        {"seconds": "1"},
        {"seconds": True},
        {"rater": ""},
        {"rater": "x" * 65},
        {"rater": "a\x00b"},
        {"rater": 5},
    ):
        status, said = ask(server, "/api/vote", {**good, **change})
        assert (status, list(said)) == (400, ["error"]), change
    assert ask(server, "/api/vote", [1])[0] == 400
    assert ask(server, "/api/vote", good, Content_Type="text/plain")[0] == 415
    assert ask(server, "/api/vote", {**good, "more": "x" * 5000})[0] == 413
    assert ask(server, "/api/next?rater=anna", Host="evil.example")[0] == 403
    for path in ("/nothing", "/media/none", "/media/../study.json", "/study.json", "/votes.sqlite", "/api/next"):
        assert ask(server, path)[0] in (400, 404), path
    assert server.store.votes() == []
    with pytest.raises(OutputError, match="cannot listen"):
        StudyServer(server.folder, port=server.server_address[1])


# From end to end


def state(browser: Any) -> str:
    return str(browser.execute_script("return document.body.dataset.state"))


def wait_for(browser: Any, *states: str) -> str:
    end = time.monotonic() + 120
    while (found := state(browser)) not in states:
        if time.monotonic() > end:
            pytest.fail(
                f"the page stays at {found!r}: {browser.find_element('id', 'error').text} {complaints(browser)}"
            )
        time.sleep(0.02)
    return found


def test_raters_in_a_browser_are_ranked_as_they_prefer(sources: Path, tmp_path: Path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    out = tmp_path / "study"
    folders = [word for codec in CODECS for word in ("--folder", f"{codec}={sources / codec}")]
    made = typed("study", "make", out, *folders, "--seed", "a seed", "--originals", sources / "ant", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["pairs"] == 12
    assert called("study", "score", out).returncode == 2, "no votes yet"
    plan = read_plan(out)
    random = np.random.default_rng(3)
    keys = {"left": Keys.ARROW_LEFT, "right": Keys.ARROW_RIGHT, "equal": Keys.ARROW_DOWN}
    command = [sys.executable, "-m", "tokcodec", "study", "serve", str(out), "--json"]
    # Whoever runs the tests in the background may have SIGINT ignored, and children would inherit that.
    serving = subprocess.Popen(
        command, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    try:
        assert serving.stdout is not None
        url = json.loads(serving.stdout.readline())["url"]
        with chromium() as browser:

            def press(key: str) -> None:
                before = browser.execute_script("return document.getElementById('progress').textContent")
                ActionChains(browser).send_keys(key).perform()
                end = time.monotonic() + 60
                while browser.execute_script("return document.getElementById('progress').textContent") == before:
                    assert time.monotonic() < end, "the key did nothing"
                    time.sleep(0.02)

            for rater in ("anna", "bert"):
                browser.get(url)
                browser.find_element("id", "rater").send_keys(rater, Keys.ENTER)
                for number in range(12):
                    assert wait_for(browser, "playing", "ready")
                    if rater == "anna" and number == 0:
                        # Both play from the start and in step; nothing counts before they were shown once.
                        assert wait_for(browser, "ready") == "ready"
                        drift = browser.execute_script("return Math.abs(left.currentTime - right.currentTime)")
                        assert drift < 0.1
                        assert browser.find_element("id", "original").is_displayed()
                        press(keys["equal"])
                        wait_for(browser, "ready", "playing")
                        press(Keys.BACKSPACE)
                    wait_for(browser, "ready")
                    shown = [
                        plan.stimulus(browser.find_element("id", side).get_attribute("data-media")).codec
                        for side in ("left", "right")
                    ]
                    press(keys[preferred(*shown, random)])
                assert wait_for(browser, "finished") == "finished"
            assert complaints(browser) == []
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=60) == 130
    stored = VoteStore(out / VOTES_NAME).votes()
    assert len(stored) == 24
    assert all(one.choice != "equal" for one in stored), "the vote that was taken back does not count"
    assert all(one.seconds > 0.1 for one in stored)
    scored = typed("study", "score", out, "--json", "--bootstrap", "200")
    assert scored.returncode == 0, scored.stderr
    values = json.loads(scored.stdout)
    assert [one["codec"] for one in values["rates"][0]["codecs"]] == ["owl", "ant", "cow"]
    assert (values["rates"][0]["votes"], values["rates"][0]["raters"]) == (24, 2)
    assert "Bradley-Terry" in values["method"]
    lines = called("study", "score", out).stdout.decode()
    assert "24 of 2 raters" in lines
    assert lines.index("owl") < lines.index("ant ") < lines.index("cow")


def test_usage_errors_of_the_commands(study: Path, tmp_path: Path, sources: Path):
    cases = [
        (2, ("make", tmp_path / "out")),
        (2, ("make", tmp_path / "out", "--folder", "ant")),
        (2, ("make", tmp_path / "out", "--bench", tmp_path)),
        (2, ("make", tmp_path / "out", "--bench", tmp_path, "--dataset", "x", "--rate", "high")),
        (3, ("make", tmp_path / "out", "--bench", tmp_path, "--dataset", "x")),
        (2, ("make", tmp_path / "out", "--folder", f"ant={sources / 'ant'}", "--format", "gif")),
        (7, ("make", study, "--folder", f"ant={sources / 'ant'}", "--folder", f"owl={sources / 'owl'}")),
        (3, ("serve", tmp_path / "none")),
        (3, ("score", tmp_path / "none")),
    ]
    for code, words in cases:
        done = called("study", *words)
        assert done.returncode == code, (words, done.stderr)
        assert b"hint: " in done.stderr, words
    assert not (tmp_path / "out").exists()
