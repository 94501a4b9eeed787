"""What a reader sees of an expansion: judge, preview, dataset card, report."""
