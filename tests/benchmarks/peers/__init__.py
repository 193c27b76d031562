"""The engines, each in its own process and mostly in its own virtual environment."""
