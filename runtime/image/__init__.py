"""Store of images on disk, their archives, and the built-in image `base`."""

__all__ = ["config", "images", "layer", "store", "tar", "unpack", "whiteout"]
