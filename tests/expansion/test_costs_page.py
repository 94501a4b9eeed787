"""docs/costs.md: 158K rows of three kinds, counted with the project's prompts and prices.

`python -m tests.expansion.test_costs_page` prints the table.
"""

from __future__ import annotations

from pathlib import Path

from llava.expansion.asking.prices import load_prices
from llava.expansion.asking.token_counts import TokenCounter
from llava.expansion.recipe.kinds import load_expansion_recipe
from llava.expansion.teachers.base import Usage
from tests.expansion.gates.test_reply_set import images

ROWS = {"conversation": 58_000, "detail": 23_000, "reasoning": 77_000}  # arXiv:2304.08485, section 3
MODELS = ("gpt-6-luna", "claude-haiku-5-5", "gpt-6.2-sol", "claude-sonnet-5-5")
WIDTH, HEIGHT = 640, 480


def usage(image_tokens: int) -> tuple[Usage, Usage]:
    """Tokens of all rows without and with a warm prompt cache."""
    counter, recipe = TokenCounter(""), load_expansion_recipe("coco")
    read = cached = written = 0.0
    for name, rows in ROWS.items():
        kind = recipe.kind(name)
        contexts = [counter.messages([{"role": "user", "content": kind.context.render(one)}])
                    for one in images().values()]  # fmt: skip
        prefix = counter.messages(kind.prefix())
        read += rows * (prefix + sum(contexts) / len(contexts) + image_tokens)
        cached += (rows - 1) * prefix
        written += rows * kind.expected_output_tokens
    return Usage(round(read), 0, round(written)), Usage(round(read), round(cached), round(written))


def table() -> list[str]:
    prices = load_prices("")
    lines = []
    for model in MODELS:
        price = prices.models[model]
        assert price.image is not None
        for what, tokens in (("text", 0), ("text and image", price.image.count(WIDTH, HEIGHT))):
            plain, warm = usage(tokens)
            costs = (price.of(plain), price.of(warm), price.of(plain, batch=True))
            lines.append(f"| {model} | {what} | " + " | ".join(f"{cost:,.0f}" for cost in costs) + " |")
    return lines


def test_the_page_has_today_s_prompts_and_prices() -> None:
    page = (Path(__file__).parents[2] / "docs" / "costs.md").read_text()
    assert all(line in page for line in table())


if __name__ == "__main__":
    print("\n".join(table()), usage(0), sep="\n")
