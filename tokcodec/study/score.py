"""Votes -> Bradley-Terry strengths in Elo points, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import UsageError
from tokcodec.study.votes import Vote

Array = NDArray[np.float64]

ELO_PER_UNIT = 400 / math.log(10)
"""400 points are ten wins to one loss."""
ELO_MEAN = 1500.0
PRIOR_TIES = 1.0
"""One tie is added for each two codecs that were compared: a codec that won every vote would be infinitely strong."""
INTERVAL = (2.5, 97.5)
_STEPS = 200
_TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True)
class CodecScore:
    """One codec at one rate.

    Attributes:
        codec: Name.
        elo: Elo points; the mean over the codecs of a rate is 1500.
        low: Lower end of the interval.
        high: Upper end.
        wins: Votes for it.
        losses: Votes for the other.
        ties: Votes for neither.
    """

    codec: str
    elo: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True, kw_only=True)
class RateScore:
    """All codecs at one rate.

    Attributes:
        rate: As text; "" where the study has one without a number.
        codecs: By falling Elo.
        votes: How many.
        raters: How many.
        left_share: Of the votes for a side those for the left, 0 to 1; None where all are ties. Far from 0.5 over
            many votes it speaks of raters who look at one side.
        beats: For each two codecs of different rank, "upper > lower", the share of resamples that agree.
    """

    rate: str
    codecs: Sequence[CodecScore]
    votes: int
    raters: int
    left_share: float | None
    beats: dict[str, float]


def score_votes(votes: Sequence[Vote], *, resamples: int = 1000, seed: int = 0) -> list[RateScore]:
    """Score every rate by itself.

    The strengths maximise the Bradley-Terry likelihood, where a tie is half a win for each and one tie is added for
    each two codecs that were compared. The intervals are the 2.5 and 97.5 percentiles of the strengths of
    resamples: raters are drawn with replacement, and then of each rater drawn as many of the votes.

    Args:
        votes: All of them.
        resamples: How many.
        seed: Of the resampling.

    Raises:
        UsageError: There are no votes, or codecs of a rate were never compared with the rest.
    """
    if not votes:
        raise UsageError("there are no votes yet", hint="tokcodec study serve DIR")
    rates = sorted({vote.rate for vote in votes})
    return [_score([vote for vote in votes if vote.rate == rate], rate, resamples, seed) for rate in rates]


def _score(votes: Sequence[Vote], rate: str, resamples: int, seed: int) -> RateScore:
    codecs = sorted({codec for vote in votes for codec in (vote.left_codec, vote.right_codec)})
    number = {codec: index for index, codec in enumerate(codecs)}
    raters = sorted({vote.rater for vote in votes})
    # wins[v, i, j]: what vote v says of i against j.
    wins = np.zeros((len(votes), len(codecs), len(codecs)))
    for index, vote in enumerate(votes):
        left, right = number[vote.left_codec], number[vote.right_codec]
        share = {"left": 1.0, "equal": 0.5, "right": 0.0}[vote.choice]
        wins[index, left, right] += share
        wins[index, right, left] += 1 - share
    total: Array = wins.sum(axis=0)
    compared = (total + total.T) > 0
    _check_connected(compared, codecs)
    prior = PRIOR_TIES / 2 * compared
    elo = strengths((total + prior)[None])[0]
    rows = [np.array([i for i, vote in enumerate(votes) if vote.rater == rater]) for rater in raters]
    random = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(codecs), len(codecs)))
    for sample in range(resamples):
        chosen = [random.choice(rows[rater], len(rows[rater])) for rater in random.integers(len(rows), size=len(rows))]
        drawn[sample] = wins[np.concatenate(chosen)].sum(axis=0)
    resampled = strengths(drawn + prior)
    low, high = np.percentile(resampled, INTERVAL, axis=0)
    order = np.argsort(-elo, kind="stable")
    scores = [
        CodecScore(
            codec=codecs[i],
            elo=float(elo[i]),
            low=float(low[i]),
            high=float(high[i]),
            wins=_count(votes, codecs[i], won=True),
            losses=_count(votes, codecs[i], won=False),
            ties=sum(vote.choice == "equal" and codecs[i] in (vote.left_codec, vote.right_codec) for vote in votes),
        )
        for i in order
    ]
    sided = [vote.choice for vote in votes if vote.choice != "equal"]
    return RateScore(
        rate=rate,
        codecs=scores,
        votes=len(votes),
        raters=len(raters),
        left_share=sided.count("left") / len(sided) if sided else None,
        beats={
            f"{codecs[upper]} > {codecs[lower]}": float(np.mean(resampled[:, upper] > resampled[:, lower]))
            for place, upper in enumerate(order)
            for lower in order[place + 1 :]
        },
    )


def _count(votes: Sequence[Vote], codec: str, *, won: bool) -> int:
    return sum(
        vote.choice != "equal"
        and codec in (vote.left_codec, vote.right_codec)
        and ((vote.left_codec if vote.choice == "left" else vote.right_codec) == codec) is won
        for vote in votes
    )


def strengths(wins: Array) -> Array:
    """Bradley-Terry maximum likelihood by Newton's method, many at once.

    Args:
        wins: `(B, N, N)`; `[b, i, j]` is how often i won against j, fractions allowed. Every i must have won
            against and lost to somebody, in such a way that all are connected.

    Returns:
        `(B, N)` Elo points with the mean 1500.
    """
    count = wins.shape[1]
    games = wins + wins.transpose(0, 2, 1)
    won = wins.sum(axis=2)
    values = np.zeros(wins.shape[:2])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(values[:, None, :] - values[:, :, None]))
        slope = won - (games * chance).sum(axis=2)
        curve = games * chance * (1 - chance)
        # The constant pins the sum, which the likelihood leaves open.
        hessian = np.eye(count) * curve.sum(axis=2)[:, :, None] - curve + 1.0
        step = np.linalg.solve(hessian, slope[:, :, None])[:, :, 0]
        values += np.clip(step, -2, 2)
        values -= values.mean(axis=1, keepdims=True)
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    return np.asarray(ELO_MEAN + ELO_PER_UNIT * values)


def _check_connected(compared: NDArray[np.bool_], codecs: Sequence[str]) -> None:
    reached = {0}
    while grown := {int(j) for i in reached for j in np.flatnonzero(compared[i])} - reached:
        reached |= grown
    apart = [codec for index, codec in enumerate(codecs) if index not in reached]
    if apart:
        raise UsageError(
            f"{', '.join(apart)} and {codecs[0]} were never compared, not even through others",
            hint="collect more votes",
        )
