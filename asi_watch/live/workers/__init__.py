"""What the worker threads do: reads, merges, products, in order and within bounds."""
