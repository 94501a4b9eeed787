"""What annotations lack for the kinds of rows that are asked for: said before anything is paid."""

from __future__ import annotations

from collections.abc import Sequence

from llava.errors import SettingsError
from llava.expansion.recipe.kinds import KindRecipe
from llava.expansion.sources.corpus import Corpus


def what_lacks(corpus: Corpus, taught: Sequence[KindRecipe], names: Sequence[str]) -> tuple[str, ...]:
    """Warnings that everyone should see.

    Raises:
        SettingsError: no kind would give a row.
    """
    with_boxes = any(image.boxes for image in corpus)
    with_captions = any(image.captions for image in corpus)
    idle = [kind.name for kind in taught if not any(kind.context.usable(image) for image in corpus)]
    idle += ["region"] if "region" in names and not with_boxes else []
    idle += ["naive"] if "naive" in names and not with_captions else []
    lacks = " and ".join(
        [*([] if with_captions else ["captions"]), *([] if with_boxes else ["boxes (COCO's are in instances_*.json)"])]
    )
    if names and len(idle) == len(names):
        raise SettingsError(
            f"kinds: {', '.join(idle)} would give no row: the annotations have no {lacks}; kinds that show the image "
            "need no captions, region needs boxes alone"
        )
    warnings = [f"{', '.join(idle)} will give no row: the annotations have no {lacks}"] if idle else []
    told = [kind.name for kind in taught if kind.context.boxes and kind.name not in idle]
    if told and not with_boxes:
        warnings.append(
            f"the annotations have no boxes: {', '.join(told)} are written from captions alone, and no gate checks "
            "objects, counts and sides (COCO's boxes are in instances_*.json beside captions_*.json)"
        )
    if not with_captions:
        warnings.append("the annotations have no captions, so that pretrain_data is empty")
    return tuple(warnings)
