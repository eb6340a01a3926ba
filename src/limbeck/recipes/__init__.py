"""Recipes: complete runs as YAML."""
