"""Finished predictions side by side: paired differences of each headline, corrected for how many there are.

Two models are compared on the questions both have answered, by the headline itself (F1, a total, CIDEr), both
recomputed on each sample of images. Many comparisons find something by chance, so p-values are corrected by Holm's
method and intervals widened to hold all together (Bonferroni); the single intervals are shown as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from llava import storage
from llava.errors import DataError, SettingsError
from llava.evaluation import statistics
from llava.evaluation.about import About, about_uri
from llava.evaluation.benchmark import PROFILES, Profile
from llava.evaluation.finished import dense
from llava.evaluation.question_files import json_lines
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Difference, Interval
from llava.evaluation.verdicts import verdicts_on
from llava.validation import validate

_DRAWS_IN_A_TAIL = 25  # so that the ends of an interval are no single draw


@dataclass(frozen=True)
class Finished:
    """One model's finished predictions for one benchmark.

    Attributes:
        label: how it is called here.
        key: of the benchmark among the compared ones.
        about: what its run said of it.
        rows: by question id, as they lie on disk.
        uri: of the file.
        judges: who scored it, where a judge did.
    """

    label: str
    key: str
    about: About
    rows: Mapping[str, Mapping[str, Any]]
    uri: str
    judges: str = ""

    def scored(self, profile: Profile) -> list[str]:
        """Ids of the questions that have a score."""
        return [key for key, row in self.rows.items() if profile in row.get("headline", {})]

    def figure(self, ids: Sequence[str], profile: Profile) -> Ratios:
        """The headline over some questions.

        Raises:
            DataError: a row's parts do not fit.
        """
        try:
            return dense([self.rows[key]["headline"][profile] for key in ids], self.about.weights[profile])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.uri}: the parts of its headline cannot be read: {error}") from error

    def clusters(self, ids: Sequence[str]) -> list[str]:
        """The cluster of each question."""
        return [str(self.rows[key].get("cluster", key)) for key in ids]


@dataclass(frozen=True)
class Compared:
    """`model - other` on one benchmark.

    Attributes:
        difference: with its own 95 % interval, and the p-value by itself.
        together: the interval that holds at 95 % for all comparisons at once.
        p: corrected for the number of comparisons (Holm).
        wins: questions on which the model's score is the higher one.
        losses: and the lower one.
        only_one: questions that only one of them has answered, which are left out.
    """

    key: str
    headline: str
    model: str
    other: str
    difference: Difference
    together: Interval
    p: float
    wins: int
    losses: int
    only_one: int


@dataclass(frozen=True)
class Comparison:
    """Everything compared: figures of each, and differences."""

    profile: Profile
    finished: Sequence[Finished]
    figures: Mapping[tuple[str, str], Interval] = field(default_factory=dict)  # (label, benchmark)
    compared: Sequence[Compared] = ()

    @property
    def labels(self) -> list[str]:
        """Models, in the order given."""
        return list(dict.fromkeys(item.label for item in self.finished))

    @property
    def keys(self) -> list[str]:
        """Benchmarks, in order of first appearance."""
        return list(dict.fromkeys(item.key for item in self.finished))


def open_finished(place: str, contender: str) -> list[Finished]:
    """Predictions by `LABEL=PLACE` or a place: a file, a run's predictions folder, or one with a folder a benchmark.

    Raises:
        DataError: no finished predictions there, or not of this version.
    """
    label, equals, uri = place.partition("=")
    if not equals or "/" in label:
        label, uri = "", place
    if uri.endswith(".jsonl"):
        files = [uri]
    else:
        end = f"{contender}.jsonl"
        files = [
            storage.join(uri, item.path)
            for item in sorted(storage.list_files(uri), key=lambda item: item.path)
            if item.path == end or (item.path.endswith(f"/{end}") and item.path.count("/") == 1)
        ]
    if not files:
        raise DataError(f"{uri}: no {contender}.jsonl in it or one folder below; expected finished predictions")
    return [_open(label or _short(uri), file) for file in files]


def compare(
    finished: Sequence[Finished], profile: Profile, *, successive: bool = False, all_pairs: bool = False
) -> Comparison:
    """Compare models on every benchmark that two of them share.

    Args:
        finished: of two models or more; labels are unique a benchmark.
        profile: how answers were read.
        successive: each model against the one before it, for a history; else each against the first.
        all_pairs: every model against every other.

    Raises:
        DataError: two with one label, questions of one id that differ, or nothing in common.
    """
    _check(finished)
    figures = {}
    for item in finished:
        ids = item.scored(profile)
        if ids:
            figures[item.label, item.key] = statistics.estimate(item.figure(ids, profile), item.clusters(ids))
    pairs = []
    for key in dict.fromkeys(item.key for item in finished):
        own = [item for item in finished if item.key == key]
        if all_pairs:
            pairs += [(later, earlier) for earlier, later in combinations(own, 2)]
        else:
            pairs += [(item, own[k] if successive else own[0]) for k, item in enumerate(own[1:])]
    shared = [(one, other, ids) for one, other in pairs if (ids := _shared(one, other, profile))]
    if not shared:
        raise DataError(
            f"nothing to compare among {', '.join(item.uri for item in finished)}: no two of them have scored the same "
            "questions of one benchmark"
        )
    return Comparison(profile, finished, figures, _differences(shared, profile))


def _differences(shared: Sequence[tuple[Finished, Finished, list[str]]], profile: Profile) -> list[Compared]:
    level = 1 - (1 - statistics.LEVEL) / len(shared)
    resamples = max(statistics.RESAMPLES, round(2 * _DRAWS_IN_A_TAIL / (1 - level)))
    found = []
    for one, other, ids in shared:
        figures, clusters = (one.figure(ids, profile), other.figure(ids, profile)), one.clusters(ids)
        single = statistics.difference(*figures, clusters, resamples=resamples)
        together = statistics.difference(*figures, clusters, level=level, resamples=resamples)
        found.append((one, other, ids, single, together.interval))
    corrected = statistics.holm([single.p for *_, single, _ in found])
    result = []
    for (one, other, ids, alone, widened), p in zip(found, corrected, strict=True):
        signs = [_score(one, key, profile) - _score(other, key, profile) for key in ids]
        only_one = len(set(one.scored(profile)) ^ set(other.scored(profile)))
        wins, losses = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
        result.append(
            Compared(one.key, one.about.headline, one.label, other.label, alone, widened, p, wins, losses, only_one)
        )
    return result


def _score(item: Finished, key: str, profile: Profile) -> float:
    return float(item.rows[key].get("scores", {}).get(profile, 0.0))


def _shared(one: Finished, other: Finished, profile: Profile) -> list[str]:
    if one.judges != other.judges:
        raise DataError(
            f"{one.uri} was judged by {one.judges or 'nobody'}, {other.uri} by {other.judges or 'nobody'}; expected "
            "one judge for both (llava evaluate judge)"
        )
    theirs = set(other.scored(profile))
    ids = [key for key in one.scored(profile) if key in theirs]
    for key in ids:
        for name in ("question", "expected"):
            if one.rows[key].get(name) != other.rows[key].get(name):
                raise DataError(
                    f"{one.uri} and {other.uri}: question {key!r}: {name} differs ({one.rows[key].get(name)!r} and "
                    f"{other.rows[key].get(name)!r}); expected the same questions, or they do not pair"
                )
    return ids


def _check(finished: Sequence[Finished]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for item in finished:
        if (item.label, item.key) in seen:
            raise SettingsError(
                f"{item.uri} and {seen[item.label, item.key]} are both called {item.label!r}; expected "
                "LABEL=PLACE to tell them apart"
            )
        seen[item.label, item.key] = item.uri


def _open(label: str, file: str) -> Finished:
    place = about_uri(file)
    if not storage.exists(place):
        raise DataError(
            f"{file}: nothing beside it says what it is ({place.rpartition('/')[2]} is missing); expected predictions "
            "of a finished llava evaluate. Run it again on the same folder: no answer is asked for twice"
        )
    about = validate(About, storage.read_json(place), place)
    rows = {str(row.get("id")): row for _, row in json_lines(file)}
    answers = {key: str(row.get("answer", "")) for key, row in rows.items()}
    if not about.weights and (verdicts := verdicts_on(file, answers)):
        judged = verdicts.scored()
        rows = {key: row | judged.get(key, {}) for key, row in rows.items()}
        about = about.model_copy(update={"weights": {profile: [1.0] for profile in PROFILES}})
        return Finished(label, about.benchmark, about, rows, file, verdicts.by)
    return Finished(label, about.benchmark, about, rows, file)


def _short(uri: str) -> str:
    """What tells one run from another in a path: the folder of the run rather than `predictions`."""
    parts = [part for part in uri.rstrip("/").split("/") if part]
    while len(parts) > 1 and (parts[-1].endswith(".jsonl") or parts[-1] in ("predictions", "evaluate")):
        parts.pop()
    return parts[-1] if parts else uri
