"""The daemon: exposures land in a folder, HDR images come out."""
