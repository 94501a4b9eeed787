"""What stands in text and ids where an image goes, in LLaVA's rows and in everything made of them."""

IMAGE_TOKEN = "<image>"
