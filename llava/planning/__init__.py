"""What a training run will need, by arithmetic: FLOPs, memory, time, and what to change where it does not fit."""
