"""Room on the disks: the floor below which writing pauses, and retention."""
