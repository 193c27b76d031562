"""The settings of a run: what they are, and the check of a config before anything is loaded."""
