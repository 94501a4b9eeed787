"""`pipeline.py clustertest`: a small world is sent through a real Kubeflow, faults and all, and the surprises are counted."""
