"""Tests of runtime/init: a container's first process and its confinement."""
