"""Readers of what datasets ship: COCO annotations, blip_laion rows, plain image-caption lists."""
