"""What a run leaves to look at: one report in several forms, `docs/report.md` tells which."""
