"""What is true of the pipelines apart from kfp's own syntax: graph, resources, lint, service."""
