"""Local runs of a compiled pipeline: Kubeflow's own orchestration and cache, our processes."""
