"""The content hash changes with what goes into an image, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.images.bake import load_images
from tools.images.content import Ignore, content_hash, image_files
from tools.images.dockerfile import DockerfileError, parse


def hashes(root: Path, **variables: str) -> dict[str, str]:
    return {name: content_hash(root, image) for name, image in load_images(root, variables).items()}


def append(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text((root / path).read_text() + "\nmore")


def replace(old: str, new: str) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        path = root / "images" / "Dockerfile"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        (append("components/expand/component.py"), {"light"}),
        (append("components/train/component.py"), {"train"}),
        (append("lib/config.py"), {"light", "train"}),
        (append("lib/expansion/a.py"), {"light"}),
        (append("lib/training/b.py"), {"train"}),
        (append("locks/a.txt"), {"train"}),
        (append("tools/check.sh"), {"train"}),
        (append("locks/b.txt"), set()),
        (append("docs/guide.md"), set()),
        (append("components/expand/README.md"), set()),
        (append("lib/training/__pycache__/b.pyc"), set()),
        (lambda root: (root / "lib/training/new.py").write_text(""), {"train"}),
        (lambda root: (root / "lib/training/b.py").rename(root / "lib/training/c.py"), {"train"}),
        (lambda root: (root / "lib/training/b.py").chmod(0o755), {"train"}),
        (replace("# a comment", "# another"), set()),
        (replace("cat \\\n    /tmp", "cat   \\\n\n /tmp"), set()),
        (replace("RUN cat", "RUN tail"), {"train"}),
        (replace("FROM base AS train\n", "FROM base AS train\nENV A=1\n"), {"train"}),
        (replace("FROM ${BASE_IMAGE} AS base\n", "FROM ${BASE_IMAGE} AS base\nENV A=1\n"), {"light", "train"}),
    ],
)
def test_a_change_rebuilds_exactly_the_images_it_is_in(
    checkout: Path, change: Callable[[Path], object], rebuilt: set[str]
) -> None:
    before = hashes(checkout)
    change(checkout)
    after = hashes(checkout)
    assert {name for name in before if before[name] != after[name]} == rebuilt


def test_arguments_count_where_they_are_used(checkout: Path) -> None:
    before = hashes(checkout)
    other_lock = hashes(checkout, LOCK="b.txt")
    assert before["light"] == other_lock["light"] and before["train"] != other_lock["train"]
    other_base = hashes(checkout, BASE="debian:12@sha256:" + "0" * 64)
    assert all(before[name] != other_base[name] for name in before)


def test_the_hash_does_not_depend_on_where_the_checkout_lies_or_when(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import shutil

    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(checkout, elsewhere, copy_function=shutil.copy)  # new times
    assert hashes(checkout) == hashes(elsewhere)


def test_files_that_go_into_an_image(checkout: Path) -> None:
    images = load_images(checkout, {})
    assert image_files(checkout, images["train"]) == [
        "components/train/component.py",
        "lib/config.py",
        "lib/training/b.py",
        "locks/a.txt",
        "tools/check.sh",
    ]


def test_a_copy_of_nothing_is_an_error_that_names_it(checkout: Path) -> None:
    replace("COPY lib/training", "COPY lib/trianing")(checkout)
    with pytest.raises(DockerfileError, match="stage train: COPY lib/trianing: no such file"):
        hashes(checkout)


@pytest.mark.parametrize("line", ["ADD https://example.com/x /x", "RUN <<END"])
def test_what_the_reader_cannot_follow_is_refused(line: str) -> None:
    with pytest.raises(DockerfileError, match="not followed"):
        parse(f"FROM a AS b\n{line}\n")


def test_an_unnamed_stage_is_refused() -> None:
    with pytest.raises(DockerfileError, match="give the stage a name"):
        parse("FROM debian:12\n")


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("a.md", True),
        ("lib/a.py", False),
        ("lib/deep/__pycache__/a.pyc", True),
        ("__pycache__/a", True),
        ("library/a.py", True),
        ("lib/deep/README.md", True),
        ("README.md", False),
    ],
)
def test_dockerignore(path: str, ignored: bool) -> None:
    rules = Ignore("# comment\n*\n!lib\n!README.md\n\n**/__pycache__\nlib/**/README.md\n")
    assert (path in rules) is ignored
