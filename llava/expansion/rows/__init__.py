"""From replies and annotations to LLaVA rows, with where each came from, and mixtures with other data."""
