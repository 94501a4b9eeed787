"""Data expansion: images with captions and boxes in, LLaVA rows out (naive pairs, teacher-written kinds, regions)."""
