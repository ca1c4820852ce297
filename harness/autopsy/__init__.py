"""Why a cell went wrong: one probe replayed with taps, traces and the kernel's own reasons."""
