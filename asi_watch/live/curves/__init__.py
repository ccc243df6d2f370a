"""A camera's response curve in use, and its recalibration from recent brackets."""
