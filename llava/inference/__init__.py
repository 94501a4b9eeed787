"""A trained model answering: from Python, and over HTTP."""
