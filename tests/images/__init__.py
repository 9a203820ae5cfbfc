"""Tests of the images, with a real Docker engine: `make image-test`."""
