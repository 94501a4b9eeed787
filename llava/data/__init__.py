"""Rows to batches: records, templates and labels, images, the lazy dataset, packing and read-ahead.

Nothing is imported here, so that `llava.data.records` stays usable where torch is not installed.
"""
