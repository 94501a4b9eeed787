"""What is wrong with one image."""

from __future__ import annotations

from llava.errors import UserError


class ImageError(UserError):
    """One image cannot be used; `problem` is its class: `image-path`, `image-missing`, `image-corrupt` or
    `image-too-large`."""

    def __init__(self, ref: str, problem: str, detail: str, expected: str) -> None:
        super().__init__(f"{ref}: {detail}; expected {expected}")
        self.ref = ref
        self.problem = problem
        self.detail = detail
        self.expected = expected
