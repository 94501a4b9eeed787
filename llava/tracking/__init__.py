"""A training run's curves in TensorBoard, MLflow or Weights & Biases as well, for those whose figures live there.

Off by default. The report, the metrics endpoint and the run log hold the same figures whether or not anything here is
switched on; what is here never stops a run, and a run that resumes continues its curves with no step lost or twice.
"""
