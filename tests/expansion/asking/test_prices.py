"""Prices: their date, how to add one, tokens of images."""

from __future__ import annotations

import pytest

from llava.expansion.asking.prices import ImageTokens, Price, PriceTable, load_prices
from llava.expansion.teachers.base import Usage


def test_prices_have_a_date_and_say_how_to_add_one() -> None:
    table = load_prices("")
    assert table.as_of >= "2026-11" and table.find("claude-haiku-4-5-20251001") == table.models["claude-haiku-4-5"]
    missing = table.missing("my-own")
    assert "my-own: {input: <price" in missing and "prices.yaml" in missing
    price = Price(input=2, cached_input=0.2, cache_write=2.5, output=10)
    assert price.of(Usage(1000, 600, 100, 300)) == pytest.approx((100 * 2 + 600 * 0.2 + 300 * 2.5 + 100 * 10) / 1e6)
    assert price.worst(1000, 100) == pytest.approx((1000 * 2.5 + 100 * 10) / 1e6)
    assert PriceTable(models={"m": price}).find("m-2") is not None


@pytest.mark.parametrize(
    ("rule", "size", "tokens"),
    [
        # The providers' own examples and measurements: 1024 x 1024 at 170 a tile and 85; 32-pixel patches times 1.2.
        (ImageTokens(rule="tiles", size=512, factor=170, base=85), (1024, 1024), 765),
        (ImageTokens(rule="tiles", size=512, factor=170, base=85), (2048, 4096), 1105),
        (ImageTokens(size=32, factor=1.2, most=10_000), (1024, 1024), 1229),
        (ImageTokens(size=32, factor=1.2, most=10_000), (512, 512), 308),
        (ImageTokens(size=32, factor=1.62, most=1536), (1024, 1024), 1659),
        (ImageTokens(rule="fixed", base=1101), (640, 480), 1101),
    ],
)
def test_image_tokens(rule: ImageTokens, size: tuple[int, int], tokens: int) -> None:
    assert rule.count(*size) == tokens
