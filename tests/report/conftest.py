"""The small project that runs are tried on, as the plugin's own tests have it."""

from tests.plugin.conftest import project

__all__ = ["project"]
