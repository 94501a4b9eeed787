"""`python -m tools.images {hash,files,code,plan,build,verify,references}`, from the root of a checkout."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.images import build as building
from tools.images.bake import Image, load_images
from tools.images.code import code_files, copy_lines, with_code
from tools.images.content import content_hash, image_files
from tools.images.dockerfile import DockerfileError
from tools.images.lock import LOCK_FILE, faults, pinned_references, write_lock
from tools.images.registry import RegistryError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 1 for a lock that is not a release or a failed build, 2 for wrong use."""
    options = _parser().parse_args(arguments)
    root = Path(options.root)
    try:
        images = load_images(root, os.environ)
        if options.only:
            unknown = [name for name in options.only if name not in images]
            if unknown:
                raise ValueError(f"image: found {unknown[0]!r}; expected one of {', '.join(images)}")
            images = {name: images[name] for name in options.only}
        return int(options.command(options, root, images))
    except (ValueError, DockerfileError, RegistryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (subprocess.CalledProcessError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _hash(options: argparse.Namespace, root: Path, images: dict[str, Image]) -> int:
    for name in images:
        print(f"{images[name].repository} {content_hash(root, images[name])}")
    return 0


def _files(options: argparse.Namespace, root: Path, images: dict[str, Image]) -> int:
    for name in images:
        for path in image_files(root, images[name]):
            print(f"{images[name].repository} {path}")
    return 0


def _code(options: argparse.Namespace, root: Path, images: dict[str, Image]) -> int:
    path = root / next(iter(images.values())).dockerfile
    before = path.read_text()
    after = with_code(before, {name: copy_lines(root, code_files(root, image)) for name, image in images.items()})
    if before == after:
        print(f"{path}: every image holds the code of its stages")
        return 0
    if not options.write:
        print(f"{path}: not the code that the stages import; python -m tools.images code --write", file=sys.stderr)
        return 1
    path.write_text(after)
    print(f"{path}: written")
    return 0


def _plan(options: argparse.Namespace, root: Path, images: dict[str, Image]) -> int:
    steps = building.plan(images, _contents(root, images), options.registry)
    print(json.dumps({"build": [step.image.name for step in steps if step.digest is None],
                      "present": [step.image.name for step in steps if step.digest is not None],
                      "tags": {step.image.name: step.tagged for step in steps}}))  # fmt: skip
    return 0


def _build(options: argparse.Namespace, root: Path, images: dict[str, Image]) -> int:
    if options.push and not options.registry:
        raise ValueError("--push needs --registry")
    contents = _contents(root, images)
    builder = options.builder or building.choose_builder(push=options.push)
    built = []
    for step in building.plan(images, contents, options.registry):
        if step.digest is None:
            building.build(step, root, push=options.push, builder=builder, more=options.docker_arg, also=options.tag)
            built.append(step.image.name)
            if options.push and builder == "docker":
                print(f"{step.tagged}: without SBOM and provenance, which this builder cannot attach; "
                      "`docker buildx create --use` makes one that can", file=sys.stderr)  # fmt: skip
        elif not options.registry:
            for tag in options.tag:
                building.tag_locally(step, tag)
    changed = False
    if options.push and not options.only:
        steps = building.plan(images, contents, options.registry)
        absent = [step.tagged for step in steps if step.digest is None]
        if absent:
            raise RuntimeError(f"pushed, but the registry does not have {', '.join(absent)}")
        changed = write_lock(root, images, {step.image.name: step.reference for step in steps}, contents)
    print(json.dumps({"built": built, "lock_changed": changed}))
    return 0


def _verify(options: argparse.Namespace, root: Path, images: dict[str, Image]) -> int:
    found = faults(root, images, _contents(root, images))
    for fault in found:
        print(fault, file=sys.stderr)
    print(
        f"{LOCK_FILE}: " + (f"{len(found)} faults" if found else "every stage is pinned to what this checkout builds")
    )
    return 1 if found else 0


def _references(options: argparse.Namespace, root: Path, images: dict[str, Image]) -> int:
    for name, reference in pinned_references(root, images).items():
        print(f"{name}={reference}")
    return 0


def _contents(root: Path, images: dict[str, Image]) -> dict[str, str]:
    return {name: content_hash(root, image) for name, image in images.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("--root", default=".", help="the checkout")
    commands = parser.add_subparsers(required=True)

    def add(name: str, function: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("only", nargs="*", metavar="IMAGE", help="only these")
        command.set_defaults(command=function)
        return command

    add("hash", _hash, "print the content hash of each image")
    add("files", _files, "print the files each image is made of")
    text = "fail unless the Dockerfile copies what the stages import, and no other file of ours"
    add("code", _code, text).add_argument("--write", action="store_true", help="put it into the Dockerfile")
    add("verify", _verify, "fail unless images.lock.json pins every stage to an image of exactly this content")
    add("references", _references, "print NAME=REPOSITORY@DIGEST of each image that images.lock.json pins")
    registry = "HOST/PATH in front of the image names; without it, the local engine is asked"
    add("plan", _plan, "print as JSON which images must be built").add_argument("--registry", default="", help=registry)
    command = add("build", _build, "build the images whose content is nowhere yet; with --push, rewrite the lock")
    command.add_argument("--registry", default="", help=registry)
    command.add_argument(
        "--push", action="store_true", help="push what was built, then pin everything in images.lock.json"
    )
    command.add_argument(
        "--tag", action="append", default=[], help="a further tag besides the content hash; repeatable"
    )
    command.add_argument(
        "--builder",
        choices=["buildx", "docker"],
        help="default: buildx where the client has it and, to push, its builder can attach SBOM and provenance",
    )
    command.add_argument(
        "--docker-arg",
        action="append",
        default=os.environ.get("LLAVA_DOCKER_ARGS", "").split(),
        help="passed to the build command; repeatable, after those in $LLAVA_DOCKER_ARGS",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
