"""A camera that is not there: a rendered sky of known radiance, or the replay of an archive."""
