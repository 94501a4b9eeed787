"""The marker beside a model that a registry refers to; who cleans up looks for it."""

MARKER = "registered.json"
