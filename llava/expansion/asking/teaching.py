"""Everything a teacher needs around it: the endpoint, its price, limits and budget; and asking for a whole job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from llava.errors import SettingsError
from llava.expansion.asking.batch_run import BatchLimits, BatchRun
from llava.expansion.asking.budget import Budget
from llava.expansion.asking.dispatch import Dispatcher, Judged, Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.prices import FREE, Price, load_prices
from llava.expansion.asking.rate import RateLimiter
from llava.expansion.asking.settled import Unusable
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Teacher
from llava.expansion.teachers.batch_interfaces import BatchForm, BatchInterface, open_batches

OFFLINE = "offline"
_OFFLINE_CONCURRENCY = 512  # it answers at once and for nothing: what counts is how many replies share a flush


@dataclass(frozen=True)
class TeacherSettings:
    """Who is asked, how fast and for how much; rates and cost 0 mean no limit."""

    teacher: str
    endpoint: str = ""
    model: str = ""
    prices: str = ""
    max_cost: float = 0.0
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    timeout: float = 120.0
    limits: Limits = field(default_factory=Limits)
    mode: Literal["online", "batch"] = "online"
    batch_form: BatchForm = "openai"
    batch: BatchLimits = field(default_factory=BatchLimits)

    @property
    def model_name(self) -> str:
        """The name in every request's id."""
        from llava.expansion.teachers.offline import OfflineTeacher

        return OfflineTeacher.model if self.teacher == OFFLINE else self.model

    def price(self, model: str = "") -> Price:
        """Price of the teacher's model, or of another one of the same table.

        Raises:
            SettingsError: a budget is set and the table does not know the model.
        """
        table = load_prices(self.prices)
        found = table.find(model or self.model_name)
        if found is None and self.max_cost:
            raise SettingsError(
                f"max_cost: nothing can be kept below it without a price: {table.missing(model or self.model_name)}"
            )
        return found or FREE

    @property
    def currency(self) -> str:
        """Of the price table."""
        return load_prices(self.prices).currency

    def open(self, model: str = "") -> Teacher:
        """Connect.

        Raises:
            SettingsError: the model's name or the key is missing.
        """
        if self.teacher == OFFLINE:
            from llava.expansion.teachers.offline import OfflineTeacher

            return OfflineTeacher()
        from llava.expansion.teachers.hosted import HostedTeacher

        return HostedTeacher(self.endpoint, model or self.model, timeout=self.timeout)

    def open_batches(self) -> BatchInterface:
        """The provider's batch interface.

        Raises:
            SettingsError: the offline teacher has none, or the model's name or the key is missing.
        """
        if self.teacher == OFFLINE:
            raise SettingsError("mode: the offline teacher answers at once and has no batches; set teacher to openai")
        if not self.model:
            raise SettingsError("teacher_model: empty; expected the model's name as the provider knows it")
        return open_batches(self.batch_form, self.endpoint, self.timeout)


def ask_in_batches(
    requests: Callable[[], Iterator[Request]],
    settings: TeacherSettings,
    ledger: Ledger,
    *,
    unusable: Unusable,
    note: Callable[[str], None],
    progress: Callable[[Outcome], None],
    judged: Judged | None = None,
) -> Outcome:
    """As `ask_all`, by jobs at the provider's batch interface.

    Raises:
        SettingsError: as `ask_all`, or there is no such interface.
        DataError: the provider refuses a job.
    """
    return BatchRun(
        settings.open_batches(),
        ledger,
        lambda: _bounded(requests(), settings.max_cost, settings.price()),
        unusable=unusable,
        price=settings.price(),
        max_cost=settings.max_cost,
        limits=settings.limits,
        batch=settings.batch,
        note=note,
        progress=progress,
        judged=judged,
    ).run()


def ask_all(
    requests: Iterable[Request],
    settings: TeacherSettings,
    ledger: Ledger,
    *,
    unusable: Unusable,
    progress: Callable[[Outcome], None],
    judged: Judged | None = None,
    model: str = "",
) -> Outcome:
    """Ask for every request without a final entry; returns when all are answered, dropped or given up, or it stops.

    Raises:
        SettingsError: a budget, and requests without an output limit, whose worst case nobody knows.
    """

    async def work() -> Outcome:
        teacher = settings.open(model)
        limits = settings.limits
        if settings.teacher == OFFLINE:
            limits = replace(limits, concurrency=_OFFLINE_CONCURRENCY)
        dispatcher = Dispatcher(
            teacher,
            ledger,
            unusable=unusable,
            judged=judged,
            budget=Budget(settings.price(model), settings.max_cost, ledger.cost),
            limiter=RateLimiter(settings.requests_per_minute, settings.tokens_per_minute),
            limits=limits,
            progress=progress,
        )
        try:
            return await dispatcher.run(_bounded(requests, settings.max_cost, settings.price(model)))
        finally:
            await teacher.close()

    return asyncio.run(work())


def _bounded(requests: Iterable[Request], max_cost: float, price: Price) -> Iterator[Request]:
    for request in requests:
        if max_cost and request.attached is not None and price.image is None and not price.free:
            raise SettingsError(
                f"max_cost: the price table does not say how many tokens {request.model!r} takes for an image, so that "
                "nothing can be kept below it; add `image` to the model's line (docs/data.md), or leave out kinds that "
                "show the image"
            )
        if max_cost and request.max_tokens is None:
            raise SettingsError(
                f"max_cost: requests of kind {request.kind!r} have no output limit, so that their cost has none; set "
                "sampling.max_tokens in the recipe, or max_completion_tokens in extra_body"
            )
        yield request
