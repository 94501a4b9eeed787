"""The image half of a LLaVA as ONNX: written, quantised, and held against torch before anyone relies on it."""
