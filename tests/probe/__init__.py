"""The probe tells what really happened, and says so when it cannot."""
