"""What is asked for: kinds, their prompts and contexts, the form of replies, and the requests with their ids."""
