"""Store of images on disk, their archives, and the built-in image `base`."""

__all__ = ["base", "config", "images", "layer", "store", "tar", "unpack", "whiteout"]
