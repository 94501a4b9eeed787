"""Every reader of outside data under arbitrary bytes: `make fuzz` by hand, `test_fuzz.py` for a few in the suite."""
