"""Figures and their intervals, baselines, thresholds, calibration."""
