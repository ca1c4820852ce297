"""Tests of runtime/daemon: the resolver and port relay of a mydocker host."""
