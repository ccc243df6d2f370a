"""A camera that is not there: a rendered sky of known radiance."""
