"""Images by content: which files make an image, the hash that is its tag, what must be rebuilt, what is pinned.

`python -m tools.images --help`. The Dockerfile and the bake file in `images/` are the only description of an image;
everything here is read from them.
"""
