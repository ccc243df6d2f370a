"""HDR mathematics: arrays in, arrays out; no files, no clocks, no threads that outlive a call.

Pixels are uint8 arrays of shape (H, W, C) with channels in the order OpenCV reads them
(blue, green, red) everywhere in this package; a log response g(z) is float32 (256, C) in the
same order.
"""
