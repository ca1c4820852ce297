"""Tests of runtime/image: layers, archives and the image library."""
