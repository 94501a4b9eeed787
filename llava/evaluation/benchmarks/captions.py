"""Captioning of COCO's kind, scored by CIDEr-D.

Every image is described once and compared with all its captions. Read from COCO's form (`captions_val2014.json`), which
NoCaps has too (`nocaps_val_4500_captions.json`), and from Karpathy's (`dataset_coco.json`, `dataset_flickr30k.json`:
the test split).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from llava import storage
from llava.errors import DataError, RowError
from llava.evaluation import layouts, question_files, statistics
from llava.evaluation.benchmark import Benchmark, Profile, Question, Scored
from llava.evaluation.cider import cider
from llava.evaluation.layouts import Form, Part
from llava.evaluation.ptb import plain_words, tokenizer_name
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

COCO = "https://cocodataset.org/#download"
KARPATHY = "caption_datasets.zip, https://cs.stanford.edu/people/karpathy/deepimagesent/"
ASK = "Provide a one-sentence caption for the provided image."


class Captions(Benchmark):
    """`cider` of the corpus, from 0 to 10; papers print its hundredfold.

    The score of a single answer, which bars and gallery use, is the share of its words that any reference has.
    """

    name = "captions"
    headline = "cider"
    max_new_tokens = 64
    image_folders: ClassVar[tuple[str, ...]] = ("val2014", "images")
    forms: ClassVar[tuple[Form, ...]] = (
        Form(
            "COCO's captions", (Part("captions", COCO, ("captions_val2014.json", "annotations/captions_val2014.json")),)
        ),
        Form("Karpathy's split of COCO", (Part("captions", KARPATHY, ("dataset_coco.json",)),)),
    )

    def read(self, uri: str) -> list[Question]:
        file = layouts.find(uri, self.forms)["captions"]
        data = storage.read_json(file)
        if isinstance(data, dict) and data.get("images") and "annotations" not in data:
            return self._karpathy(file, data)
        references: dict[str, list[str]] = {}
        for index, row in enumerate(question_files.table_of(file, data, "annotations")):
            key = question_files.text(file, index, row, "image_id")
            references.setdefault(key, []).append(question_files.text(file, index, row, "caption"))
        questions = []
        for index, row in enumerate(question_files.table_of(file, data, "images")):
            key, image = question_files.text(file, index, row, "id"), question_files.text(file, index, row, "file_name")
            if key in references:
                kind = question_files.given(file, index, row, "domain", "all")  # NoCaps: in-, near- and out-domain
                gold = {"captions": references[key]}
                questions.append(Question(key, (image,), ASK, references[key][0], kind, image, gold))
        if not questions:
            raise DataError(f"{file}: no image with a caption in it")
        return questions

    @staticmethod
    def _karpathy(file: str, data: object) -> list[Question]:
        questions = []
        for index, row in enumerate(question_files.table_of(file, data, "images")):
            if row.get("split") != "test":
                continue
            name = question_files.text(file, index, row, "filename")
            folder = question_files.given(file, index, row, "filepath")
            sentences = row.get("sentences")
            if not isinstance(sentences, list) or not sentences or not all(isinstance(s, dict) for s in sentences):
                raise RowError(file, index, "sentences", sentences, "a list of captions", problem="row-field")
            captions = [question_files.text(file, index, sentence, "raw").strip() for sentence in sentences]
            key = question_files.given(file, index, row, "cocoid" if "cocoid" in row else "imgid", name)
            image = f"{folder}/{name}" if folder else name
            questions.append(Question(key, (image,), ASK, captions[0], "all", image, {"captions": captions}))
        if not questions:
            raise DataError(f"{file}: no image of the test split in it")
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        said = set(plain_words(answer))
        known = {word for caption in question.gold["captions"] for word in plain_words(caption)}
        return len(said & known) / len(said) if said else 0.0

    def notes(self) -> list[str]:
        return [f"CIDEr-D over the words of: {tokenizer_name()}."]

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        return Ratios.mean(cider(_said(scored, profile), [item.question.gold["captions"] for item in scored]))

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        lengths = [float(len(plain_words(answer))) for answer in _said(scored, profile)]
        return {
            "cider": statistics.estimate(self.headline_ratios(scored, profile), clusters),
            "words": statistics.bootstrap(lengths, clusters),
        }


def _said(scored: Sequence[Scored], profile: Profile) -> list[str]:
    return [item.answer if profile == "llava-1.5" else item.answer.split("\n", 1)[0] for item in scored]


class NoCaps(Captions):
    """Captions of images whose objects COCO's captions do not know (Agrawal et al. 2019), by domain; validation."""

    name = "nocaps"
    image_folders: ClassVar[tuple[str, ...]] = ("images", "val")
    forms: ClassVar[tuple[Form, ...]] = (
        Form(
            "NoCaps, validation", (Part("captions", "https://nocaps.org/download", ("nocaps_val_4500_captions.json",)),)
        ),
    )


class Flickr30k(Captions):
    """Flickr30k (Young et al. 2014), the test images of Karpathy's split."""

    name = "flickr30k"
    image_folders: ClassVar[tuple[str, ...]] = ("flickr30k-images", "flickr30k_images", "images")
    forms: ClassVar[tuple[Form, ...]] = (
        Form("Karpathy's split of Flickr30k", (Part("captions", KARPATHY, ("dataset_flickr30k.json",)),)),
    )
