"""What tokens cost, from a table file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pydantic import Field

from llava import storage
from llava.config import Strict, validate
from llava.expansion.teachers.base import Usage

_MILLION = 1_000_000


class Price(Strict):
    """Prices of one model, per million tokens."""

    input: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0, description="Default: as input")
    output: float = Field(ge=0)
    batch_factor: float = Field(0.5, gt=0, le=1, description="Share of the price paid in batch files")
    tokenizer: str = Field("", description="tokenizer.json or hub directory of the model, for exact plans")

    def of(self, usage: Usage, *, batch: bool = False) -> float:
        """Cost of one reply in the table's currency."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input - usage.cached_input
        cost = (fresh * self.input + usage.cached_input * cached + usage.output * self.output) / _MILLION
        return cost * self.batch_factor if batch else cost


class PriceTable(Strict):
    """A table of models."""

    currency: str = "USD"
    as_of: str = ""
    models: dict[str, Price]

    def find(self, model: str) -> Price | None:
        """The price of a model; a dated name (`model-2024-08-06`) falls back to the listed name without date."""
        if model in self.models:
            return self.models[model]
        fitting = [name for name in self.models if model.startswith(f"{name}-2")]
        return self.models[max(fitting, key=len)] if fitting else None


FREE = Price(input=0, output=0)


def load_prices(uri: str) -> PriceTable:
    """Read a price table; an empty URI gives the bundled one.

    Raises:
        SettingsError: not a price table.
    """
    source = uri or str(_bundled())
    return validate(PriceTable, storage.read_yaml(source), source)


def _bundled() -> Path:
    package = Path(str(resources.files("llava")))
    checkout = package.parent / "recipes" / "expansion" / "prices.yaml"
    return checkout if checkout.is_file() else package / "_recipes" / "expansion" / "prices.yaml"
