"""`make test-faults`: the five stages as real processes, broken in many places, must lose, double or spoil nothing."""
