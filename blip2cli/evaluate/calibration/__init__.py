"""Calibrations: fitted to labels, judged on others, and written for runs."""
