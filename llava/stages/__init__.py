"""The five stages; see `llava/stages/stage.py` for what a stage is."""
