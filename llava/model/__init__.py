"""The model room: join a CLIP tower and a language model, merge images into text, freeze, adapt, save.

Knows torch and transformers; knows nothing of rows, files of rows or training loops (`llava.data`, `llava.training`).
"""
