"""Preflight: what is wrong with a stage's settings and places, found before anything is read, trained or paid.

`check.py` is asked by every entry point (the stage's own command, the executor in a pod, a local run, a submission);
each stage has a file of its own here, and `places.py` what they ask of files and folders.
"""
