"""Store of images on disk, their archives, and the built-in image `base`."""

__all__ = ["assemble", "config", "documents", "images", "store", "tar", "unpack", "whiteout"]
