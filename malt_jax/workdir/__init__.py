"""What lies on disk in a work directory, and how it gets there whole."""
