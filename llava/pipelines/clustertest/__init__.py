"""`pipeline.py clustertest`: a small world through a real Kubeflow, disturbed on its way; surprises are counted."""
