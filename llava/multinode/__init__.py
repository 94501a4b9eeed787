"""Training on several nodes of a cluster: a Kubeflow Trainer job, made, followed and cleaned up by a stage's pod."""
