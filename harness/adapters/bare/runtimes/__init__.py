"""One file per bare runtime."""

__all__ = ["bwrap", "containerd", "lxc", "nspawn", "oci", "runsc"]
