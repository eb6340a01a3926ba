"""Recipes carried out: teachers, baselines and students trained, tested and kept in a run folder."""
