"""Suites: several benchmarks that are run together and shown as one table; each YAML file here is one by its name."""
