"""Second opinions on rows that passed the gates: a judge that may see the image, and image-text similarity."""
