"""The plan: what a job will ask, read and cost, before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass, field

from llava.expansion.asking.budget import image_tokens
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.prices import FREE, Price
from llava.expansion.asking.token_counts import TokenCounter
from llava.expansion.job import Job
from llava.expansion.teachers.base import Usage

_SAMPLE = 400
_MINUTES_PER_DAY = 1440


@dataclass
class KindPlan:
    """One kind; token counts are per job, not per request, but for `prefix_tokens`."""

    kind: str
    requests: int = 0
    answered: int = 0
    prefix_tokens: int = 0
    context_tokens: float = 0.0
    image_tokens: float = 0.0
    output_tokens: float = 0.0

    @property
    def missing(self) -> int:
        """Requests without a reply in the ledger."""
        return self.requests - self.answered


@dataclass
class Plan:
    """A job's plan.

    Attributes:
        images: that may be used; `blocked` were taken out by the block-list.
        exact: tokens come from the model's tokenizer, not from an estimate.
    """

    images: int
    blocked: int
    captions: int
    boxes: int
    exact: bool
    kinds: list[KindPlan] = field(default_factory=list)

    def usage(self, *, cached: bool) -> Usage:
        """Tokens of everything still missing; with `cached`, all but each kind's first prefix come from the cache."""
        fresh = sum(kind.missing * kind.prefix_tokens + kind.context_tokens + kind.image_tokens for kind in self.kinds)
        hits = sum(max(kind.missing - 1, 0) * kind.prefix_tokens for kind in self.kinds) if cached else 0
        return Usage(round(fresh), hits, round(sum(kind.output_tokens for kind in self.kinds)))

    def minutes(self, requests_per_minute: float, tokens_per_minute: float) -> float | None:
        """Time at given rates; None when neither is given."""
        usage = self.usage(cached=False)
        times = []
        if requests_per_minute:
            times.append(sum(kind.missing for kind in self.kinds) / requests_per_minute)
        if tokens_per_minute:
            times.append((usage.input + usage.output) / tokens_per_minute)
        return max(times) if times else None

    def costs(self, price: Price) -> dict[str, float]:
        """Cost of what is missing, for each mode: online without and with a warm prompt cache, batch file."""
        return {
            "online": price.of(self.usage(cached=False)),
            "online, prompt cache": price.of(self.usage(cached=True)),
            "batch file": price.of(self.usage(cached=False), batch=True),
        }


def make_plan(job: Job, counter: TokenCounter, ledger: Ledger | None, price: Price = FREE) -> Plan:
    """Render every request and count; contexts are tokenised for a sample and scaled by their bytes, images counted
    by the price's rule.

    Where the ledger knows replies of a kind, their mean output replaces the recipe's guess.
    """
    plan = Plan(0, 0, 0, 0, counter.exact)
    for image in job.images():
        plan.images += 1
        plan.captions += len(image.captions)
        plan.boxes += len(image.boxes)
    plan.blocked = len(job.corpus) - plan.images
    for kind in job.taught:
        entry = KindPlan(kind.name, prefix_tokens=counter.messages(kind.prefix()))
        total_bytes = sampled_bytes = sampled_tokens = 0
        for request in job.requests([kind]):
            entry.requests += 1
            if ledger is not None and request.id in ledger:
                entry.answered += 1
                continue
            size = len(request.context)
            total_bytes += size
            entry.image_tokens += image_tokens(price, request)
            if entry.requests <= _SAMPLE or entry.requests % 97 == 0:
                sampled_bytes += size
                sampled_tokens += counter.messages([{"role": "user", "content": request.context}])
        entry.context_tokens = total_bytes * sampled_tokens / max(sampled_bytes, 1)
        seen = ledger.mean_output(kind.name) if ledger is not None else None
        entry.output_tokens = entry.missing * (seen if seen is not None else kind.expected_output_tokens)
        plan.kinds.append(entry)
    return plan
