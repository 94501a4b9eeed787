"""Benchmarks, batched answers that survive a kill, scores with intervals, and the report about them."""
