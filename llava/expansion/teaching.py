"""Everything a teacher needs around it: the endpoint, its price, limits and budget; and asking for a whole job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llava.errors import SettingsError
from llava.expansion.budget import Budget
from llava.expansion.dispatch import Dispatcher, Limits, Outcome, Unusable
from llava.expansion.gates.refusal import RefusalGate
from llava.expansion.grammar import GrammarError
from llava.expansion.ledger import Ledger
from llava.expansion.prices import FREE, Price, load_prices
from llava.expansion.rate import RateLimiter
from llava.expansion.recipe import ExpansionRecipe
from llava.expansion.requests import Request
from llava.expansion.teachers.base import Reply, Teacher

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
    concurrency: int = 32
    timeout: float = 120.0
    retries: int = 8
    repairs: int = 2

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
                f"max_cost: {model or self.model_name!r} is not in the price table ({', '.join(table.models)}), "
                "so nothing can be kept below it; add the model to a table of your own and name it in prices"
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


def ask_all(
    requests: Iterator[Request],
    settings: TeacherSettings,
    ledger: Ledger,
    *,
    unusable: Unusable,
    progress: Callable[[Outcome], None],
    model: str = "",
    limits: Limits | None = None,
) -> Outcome:
    """Ask for every request without a final entry; returns when all are answered, dropped or given up, or it stops."""

    async def work() -> Outcome:
        teacher = settings.open(model)
        concurrency = _OFFLINE_CONCURRENCY if settings.teacher == OFFLINE else settings.concurrency
        dispatcher = Dispatcher(
            teacher,
            ledger,
            unusable=unusable,
            budget=Budget(settings.price(model), settings.max_cost, ledger.cost),
            limiter=RateLimiter(settings.requests_per_minute, settings.tokens_per_minute),
            limits=limits or Limits(concurrency=concurrency, retries=settings.retries, repairs=settings.repairs),
            progress=progress,
        )
        try:
            return await dispatcher.run(requests)
        finally:
            await teacher.close()

    return asyncio.run(work())


def form_check(recipe: ExpansionRecipe) -> Unusable:
    """What makes a reply unusable at once, so that it is worth asking again: cut off, of the wrong form, a refusal."""
    refusal = RefusalGate()

    def unusable(request: Request, reply: Reply) -> str:
        if reply.finish_reason != "stop":
            return f"truncation: finish_reason is {reply.finish_reason!r}"
        try:
            recipe.kind(request.kind).grammar.parse(reply.text)
        except GrammarError as error:
            return f"grammar: {error}"
        refused = refusal.phrase(reply.text)
        return f"refusal: {refused!r}" if refused else ""

    return unusable
