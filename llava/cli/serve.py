"""`llava serve`: an OpenAI-compatible endpoint on a trained model, with a page to try it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llava import extras
from llava.errors import SettingsError

app = typer.Typer(add_completion=False)


@app.command("serve")
def serve(
    model: Annotated[str, typer.Option(help="Trained model (required): hub directory, s3:// URI or hub id")] = "",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one")] = 8000,
    name: Annotated[str, typer.Option(help="What clients call the model [default: the last part of --model]")] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Requests answered at once")] = 8,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait behind those; more get a 429")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer a client may ask for")] = 512,
    images_uri: Annotated[
        str, typer.Option(help="Folder or s3:// URI below which clients may name images; none: data: URIs alone")
    ] = "",
    api_key: Annotated[
        str, typer.Option(envvar="LLAVA_SERVE_KEY", help="Key that clients must send; none: everybody is served")
    ] = "",
) -> None:
    """Serve a trained model with OpenAI's chat API and a page to try it; for production, use vLLM"""
    if not model:
        raise SettingsError("llava serve: no model given; expected --model DIR")
    extras.require("llava serve", "serve", ["starlette", "uvicorn", "torch", "transformers"])
    import uvicorn

    from llava.inference.batching import Batcher
    from llava.inference.model import load
    from llava.inference.protocol import Limits
    from llava.inference.server import Served, make_app

    loaded = load(model)
    batcher = Batcher(loaded.model, loaded.processor, batch_size=batch_size, waiting=waiting)
    limits = Limits(max_new_tokens, _context(loaded.model), _images(images_uri))
    served = Served(name or model.rstrip("/").rpartition("/")[2], loaded.processor, batcher, limits, api_key)

    class Server(uvicorn.Server):
        """Says where it listens once it does."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for socket in [one for listening in self.servers for one in listening.sockets]:
                address, bound = socket.getsockname()[:2]
                where = f"http://{f'[{address}]' if ':' in address else address}:{bound}"
                typer.echo(f"{served.name}: {where} (page), {where}/v1 (OpenAI's API); Ctrl-C ends", err=True)

    Server(
        uvicorn.Config(make_app(served), host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
    ).run()
    batcher.close()


def _context(model: Any) -> int:
    """Tokens of prompt and answer that the language model was made for."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)


def _images(uri: str) -> Any:
    if not uri:
        return None
    from llava.data.images import ImageSource

    return ImageSource(uri).load
