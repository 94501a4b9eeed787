"""The demo world: COCO files of coloured shapes, and small base models that stand in for CLIP and Vicuna.

Nothing in ``llava`` imports this package: to the pipeline it is only data and two hub directories.
"""
