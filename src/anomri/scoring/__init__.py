"""Scoring WITHOUT truth: thresholds from a scan itself or from healthy scans. Nothing here ever sees a label."""
