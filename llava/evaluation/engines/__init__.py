"""Who answers: our own generator, or an OpenAI-compatible endpoint. Log and scorer are the same for both."""
