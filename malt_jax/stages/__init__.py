"""The stages of a job in order, and what they share."""
