"""What tokens cost, from a table file."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from llava import storage
from llava.expansion.teachers.base import Usage
from llava.validation import Strict, validate

_MILLION = 1_000_000


class ImageTokens(Strict):
    """How many input tokens an image is, by the provider's published rule.

    `patches`: ceil(width / size) x ceil(height / size) patches, at most `most` (the image is scaled down to fit),
    times `factor`, plus `base`. `tiles`: scaled to fit 2048 x 2048 and then to a shorter side of 768, `factor` tokens
    for each started tile of `size`, plus `base`. `fixed`: `base`, whatever the size.
    """

    rule: Literal["patches", "tiles", "fixed"] = "patches"
    size: int = Field(32, ge=1)
    factor: float = Field(1.0, gt=0)
    most: int = Field(0, ge=0, description="Most patches; 0: no bound")
    base: int = Field(0, ge=0)

    def count(self, width: int, height: int) -> int:
        """Tokens of an image of that many pixels, as it is sent."""
        if self.rule == "fixed":
            return self.base
        if self.rule == "tiles":
            scale = min(1.0, 2048 / max(width, height))
            scale *= min(1.0, 768 / (min(width, height) * scale))
            tiles = math.ceil(width * scale / self.size) * math.ceil(height * scale / self.size)
            return self.base + math.ceil(tiles * self.factor)
        patches = math.ceil(width / self.size) * math.ceil(height / self.size)
        return self.base + math.ceil(min(patches, self.most or patches) * self.factor)


class Price(Strict):
    """Prices of one model, per million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False, description="Text and images alike")
    cached_input: float | None = Field(None, ge=0, description="Default: as input")
    cache_write: float | None = Field(
        None, ge=0, description="Tokens written to the provider's cache; default: as input"
    )
    output: float = Field(ge=0, allow_inf_nan=False, description="Reasoning tokens are output, too")
    batch_factor: float = Field(0.5, gt=0, le=1, description="Share of the price paid in batch files")
    tokenizer: str = Field("", description="tokenizer.json or hub directory of the model, for exact plans")
    image: ImageTokens | None = Field(None, description="Tokens of an image; null: the model sees none")

    def of(self, usage: Usage, *, batch: bool = False) -> float:
        """Cost of one reply in the table's currency."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        fresh = max(usage.input - usage.cached_input - usage.cache_write, 0)
        cost = (
            fresh * self.input + usage.cached_input * cached + usage.cache_write * written + usage.output * self.output
        ) / _MILLION
        return cost * self.batch_factor if batch else cost

    def worst(self, input_tokens: int, output_tokens: int, *, batch: bool = False) -> float:
        """The most that a request can cost: nothing comes from the cache, everything is written to it."""
        price = max(self.input, self.cache_write or 0.0)
        cost = (input_tokens * price + output_tokens * self.output) / _MILLION
        return cost * self.batch_factor if batch else cost

    @property
    def free(self) -> bool:
        """True for a teacher of one's own."""
        return not self.input and not self.output


class PriceTable(Strict):
    """A table of models."""

    currency: str = "USD"
    as_of: str = Field("", description="The day the prices were read")
    source: str = Field("", description="Where, for people")
    models: dict[str, Price]

    def find(self, model: str) -> Price | None:
        """The price of a model; a dated name (`model-2024-08-06`, `model-20251001`) falls back to the listed name
        without date."""
        if model in self.models:
            return self.models[model]
        fitting = [name for name in self.models if model.startswith(f"{name}-2")]
        return self.models[max(fitting, key=len)] if fitting else None

    def missing(self, model: str) -> str:
        """What to tell someone whose model is not in the table."""
        return (
            f"{model!r} is not in the price table ({', '.join(self.models)}; as of {self.as_of or 'no date'}). Add it: "
            "copy recipes/expansion/prices.yaml, put a line `"
            f"{model}: {{input: <price of a million input tokens>, output: <of a million output tokens>}}` under "
            "`models`, and name your file with prices"
        )


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
