"""Measurements: ratios against plain loops and peers, taken in one run."""
