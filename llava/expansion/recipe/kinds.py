"""Expansion recipes: which kinds of rows are made and how the teacher is asked for each. Data, not code.

A recipe is a folder: `recipe.yaml` (name, version, common settings), one YAML file per kind under `kinds/`, and
question lists under `questions/`. A new kind is a new file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.expansion.recipe.context import ContextRecipe
from llava.expansion.recipe.grammar import Grammar, GrammarError
from llava.manifest import sha256
from llava.validation import Strict, validate

BUILT_IN_KINDS = ("naive", "region")
"""Kinds made from the annotations alone, without a teacher."""


class Example(Strict):
    """One hand-written few-shot pair."""

    context: str = Field(min_length=1)
    reply: str = Field(min_length=1)


_OURS = ("model", "messages", "stream", "stream_options", "n")
"""Fields of a request's body that no recipe and no setting may touch: replies could not be read, ids would lie."""


class Sampling(Strict):
    """Request parameters that change what the teacher writes. What is unset is not sent at all: current models answer
    400 to `temperature`, to `top_p` or to both."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(1024, ge=1, description="Null: no limit is sent, and no budget can be kept")
    limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls that limit"
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of the body as the endpoint names them: reasoning_effort, thinking, service_tier, "
        "seed, response_format, ...; null takes a field out again",
    )

    @model_validator(mode="after")
    def _free_fields(self) -> Sampling:
        check_extra_body(self.extra_body)
        return self

    def fields(self, extra_body: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], str, int | None]:
        """What goes into the body beside model and messages; the name of the output limit; the limit, None without.

        Args:
            extra_body: overrides the recipe's, field by field; a null takes the field out.
        """
        set_fields = {"temperature": self.temperature, "top_p": self.top_p, self.limit_name: self.max_tokens}
        merged = {**set_fields, **self.extra_body, **(extra_body or {})}
        fields = {name: value for name, value in merged.items() if value is not None}
        name = next((name for name in ("max_completion_tokens", "max_tokens") if name in fields), "")
        limit = fields.get(name)
        if name and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise SettingsError(f"extra_body: {name}: found {limit!r}; expected a positive whole number, or null")
        return fields, name, limit


def check_extra_body(extra_body: Mapping[str, Any]) -> None:
    """Refuse fields that are not a recipe's to set.

    Raises:
        ValueError: names the field.
    """
    for name in _OURS:
        if name in extra_body:
            raise ValueError(f"extra_body: {name!r} cannot be set; it is decided by the request itself")
    try:
        json.dumps(extra_body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra_body: not JSON: {error}") from error


class KindRecipe(Strict):
    """One kind of rows a teacher writes."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: int = Field(1, ge=1, description="For people, and part of the recipe's hash in provenance; of no id")
    system: str = Field(min_length=1)
    examples: list[Example] = Field(default_factory=list)
    context: ContextRecipe = Field(default_factory=ContextRecipe)
    grammar: Grammar
    questions: str = Field("", description="Question list for `answer` grammars: a file under questions/")
    sampling: Sampling = Field(default_factory=Sampling)
    share: float = Field(1.0, gt=0, le=1, description="Share of images asked for this kind, chosen by hash")
    expected_output_tokens: int = Field(250, ge=1, description="For plans, until real replies are known")
    soft_gates: list[str] = Field(
        default_factory=list, description="Gates that flag rows of this kind without dropping them"
    )

    @model_validator(mode="after")
    def _consistent(self) -> KindRecipe:
        for position, example in enumerate(self.examples):
            try:
                self.grammar.parse(example.reply)
            except GrammarError as error:
                raise ValueError(f"examples[{position}].reply is not of its own grammar: {error}") from error
        if self.grammar.form == "answer" and not self.questions:
            raise ValueError("grammar 'answer' needs 'questions': the list its question is drawn from")
        return self

    def prefix(self) -> list[dict[str, str]]:
        """The messages every request of this kind starts with; identical, so that providers cache them."""
        messages = [{"role": "system", "content": self.system.strip()}]
        for example in self.examples:
            messages.append({"role": "user", "content": example.context.strip()})
            messages.append({"role": "assistant", "content": example.reply.strip()})
        return messages

    def fingerprint(self) -> str:
        """Hash of the whole kind, for provenance; what of it is sent decides the ids (see `requests`)."""
        parts = {
            "name": self.name,
            "version": self.version,
            "prefix": self.prefix(),
            "context": self.context.model_dump(),
            "grammar": self.grammar.model_dump(),
            "sampling": self.sampling.model_dump(),
        }
        return sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode())


class JudgeRecipe(Strict):
    """How a judge is asked; `judge.yaml`."""

    system: str = Field(min_length=1)
    vision_system: str = Field("", description="For a judge that is shown the image; empty: none can be")
    max_tokens: int = Field(200, ge=1)


class ExpansionRecipe(Strict):
    """A whole recipe folder."""

    name: str
    description: str = ""
    language: str = Field("en", pattern="^[a-z]{2}$", description="ISO 639-1 code of the rows, for gate and card")
    brief_questions: str = Field("brief", description="Question list for naive pairs")
    nouns: dict[str, list[str]] = Field(
        default_factory=dict, description="Category -> words that mean it, for the gates"
    )
    ambiguous: list[str] = Field(default_factory=list, description="Category words that often mean something else")
    phrases: list[str] = Field(
        default_factory=list, description="Phrases in which a category word means something else"
    )
    kinds: dict[str, KindRecipe] = Field(default_factory=dict)
    questions: dict[str, list[str]] = Field(default_factory=dict)
    judge: JudgeRecipe | None = None

    def kind(self, name: str) -> KindRecipe:
        """The kind of that name.

        Raises:
            SettingsError: the recipe has none.
        """
        if name not in self.kinds:
            known = ", ".join([*sorted(self.kinds), *BUILT_IN_KINDS])
            raise SettingsError(f"kinds: found {name!r}; recipe {self.name!r} and the built-in kinds offer {known}")
        return self.kinds[name]


def bundled_expansion_recipes() -> dict[str, Path]:
    """Name -> folder of the recipes that come with the project."""
    package = Path(str(resources.files("llava")))
    for folder in (package.parent / "recipes" / "expansion", package / "_recipes" / "expansion"):
        if folder.is_dir():
            return {path.parent.name: path.parent for path in sorted(folder.glob("*/recipe.yaml"))}
    return {}


def load_expansion_recipe(name_or_uri: str) -> ExpansionRecipe:
    """Read and validate a recipe folder.

    Args:
        name_or_uri: name of a bundled recipe (`coco`), or path or URI of a folder.

    Raises:
        SettingsError: no such recipe, or a file in it has a fault; the message names file, field and value.
    """
    known = bundled_expansion_recipes()
    root = str(known[name_or_uri]) if name_or_uri in known else name_or_uri
    try:
        data = _yaml(storage.join(root, "recipe.yaml"))
    except StorageError as error:
        raise SettingsError(
            f"expansion_recipe: found {name_or_uri!r} ({error}); expected one of {', '.join(known)}, "
            "or a folder with recipe.yaml and kinds/"
        ) from error
    kinds: dict[str, Any] = {}
    questions: dict[str, Any] = {}
    judge: Any = None
    for item in storage.list_files(root):
        folder, _, name = item.path.rpartition("/")
        source = storage.join(root, item.path)
        if folder == "kinds" and name.endswith(".yaml"):
            kind = validate(KindRecipe, _yaml(source), source)
            if kind.name in kinds or kind.name in BUILT_IN_KINDS:
                raise SettingsError(f"{source}: name: {kind.name!r} is taken; every kind needs its own name")
            kinds[kind.name] = kind.model_dump()
        elif item.path == "judge.yaml":
            judge = validate(JudgeRecipe, _yaml(source), source).model_dump()
        elif folder == "questions" and name.endswith(".yaml"):
            questions[name.removesuffix(".yaml")] = _yaml(source)
    recipe = validate(
        ExpansionRecipe,
        {**data, "kinds": kinds, "questions": questions, "judge": judge},
        storage.join(root, "recipe.yaml"),
    )
    for wanted, where in [
        (recipe.brief_questions, "brief_questions"),
        *((k.questions, f"kind {k.name}") for k in recipe.kinds.values()),
    ]:
        if wanted and not recipe.questions.get(wanted):
            raise SettingsError(
                f"{root}: {where}: no questions in questions/{wanted}.yaml; found {', '.join(recipe.questions)}"
            )
    return recipe


def _yaml(uri: str) -> Any:
    return storage.read_yaml(uri)
