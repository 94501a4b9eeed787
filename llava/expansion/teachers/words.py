"""The offline teacher's vocabulary."""

from __future__ import annotations

from llava.expansion.english import plural as plural

COLOURS = (
    "red", "green", "blue", "yellow", "orange", "purple", "white", "black", "brown", "gray", "grey", "pink",
    "silver", "golden",
)  # fmt: skip
SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "rectangle", "pentagon", "hexagon", "diamond",
    "heart", "oval",
)  # fmt: skip
DEMO_SHAPES = SHAPES[:6]
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
THINGS = (
    "man", "woman", "boy", "girl", "child", "shirt", "jacket", "hat", "dress", "wall", "building", "house",
    "door", "fence", "sign", "table", "plate", "flower", "tree", "roof", "bike", "motorbike", "plane", "van",
    "ball", "helmet", "sofa", "blanket", "curtain", "truck", "tower", "bridge", "box", "bag", "towel", "rug",
    "pillow", "lamp", "phone", "computer",
)  # fmt: skip
PLACE_WORDS = (
    "beach", "kitchen", "street", "bathroom", "bedroom", "living room", "park", "field", "forest", "city",
    "office", "restaurant", "airport", "station", "ocean", "lake", "river", "mountain", "zoo", "farm",
    "garden", "yard", "sidewalk",
)  # fmt: skip
# Rare enough that a caption without them means a picture without them.
CERTAINLY_NAMED = (
    "zebra", "giraffe", "elephant", "pizza", "airplane", "train", "surfboard", "toilet", "bear", "teddy bear",
    "snowboard", "boat",
)  # fmt: skip
KNOWN_NOUNS = frozenset((*SHAPES, *(noun for noun in COCO if noun != "orange"), *THINGS))
PLURALS = {**{plural(noun): noun for noun in sorted(KNOWN_NOUNS)}, "shapes": "shape"}


def singular(noun: str) -> str:
    """The reverse of `plural` for known nouns; other words come back as they are."""
    return PLURALS.get(noun, noun)


def with_article(phrase: str) -> str:
    """`red circle` -> `a red circle`, `orange ring` -> `an orange ring`."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def place_phrase(place: str) -> str:
    """`top left` -> `at the top left`, `left` -> `on the left`, `center` -> `in the center`."""
    return f"{ {'center': 'in', 'left': 'on', 'right': 'on'}.get(place, 'at') } the {place}"


def enumerate_items(items: list[str]) -> str:
    """`["a", "b", "c"]` -> `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
