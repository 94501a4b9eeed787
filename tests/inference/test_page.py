"""The page of `llava serve` in a real browser: an image, a question, an answer, errors, narrow and dark."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from tests.browser import needs_chromium
from tests.cli.test_chat import expected, picture_of
from tests.conftest import TinyWorld
from tests.driven_browser import opened
from tests.hub_model import HubModel
from tests.inference.conftest import Running

ANSWERED = "document.getElementById('send').textContent === 'Ask' && document.querySelectorAll('.turn').length === {}"


@needs_chromium
@pytest.mark.slow
def test_an_image_is_asked_about(server: Running, hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    image = picture_of(tiny_world)
    encoded = base64.b64encode(Path(image).read_bytes()).decode()
    turns = expected(hub_model.model, image, ["Where is it?", "And what is it?"], 9)

    async def visit() -> None:
        async with opened(server.url, tmp_path / "profile") as page:
            await page.until("document.getElementById('model').textContent === 'tiny'")
            await page.run(
                f"take(new File([Uint8Array.from(atob('{encoded}'), c => c.charCodeAt(0))], 'a.jpg', "
                "{type: 'image/jpeg'}))"
            )
            await page.until("document.querySelector('#drop img') && document.querySelector('#drop img').naturalWidth")
            await page.run("document.getElementById('longest').value = 9")
            for number, question in enumerate(["Where is it?", "And what is it?"]):
                await page.run(f"ask({json.dumps(question)}), 0")
                await page.until(ANSWERED.format(3 + 2 * number))
            said = await page.run("[...document.querySelectorAll('.turn.model')].map(t => t.textContent.trim())")
            assert said == turns
            await page.run("ask('<image> again'), 0")
            await page.until("document.querySelector('.turn.error')")
            assert "<image>" in await page.run("document.querySelector('.turn.error').textContent")
            assert await page.run("messages.length") == 4, "what was refused is not part of the conversation"
            for width, height, dark in ((1200, 800, False), (1200, 800, True), (390, 844, False), (390, 844, True)):
                picture = await page.look(width, height, dark=dark)
                (tmp_path / f"page-{width}-{'dark' if dark else 'light'}.png").write_bytes(picture)
                assert await page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs out"
            await page.run("document.getElementById('reset').click()")
            assert await page.run("document.querySelectorAll('.turn').length") == 1
            # The one refused request is all that the console may speak of.
            assert all("400" in entry or "Content Security Policy" in entry for entry in page.console), page.console

    asyncio.run(visit())
