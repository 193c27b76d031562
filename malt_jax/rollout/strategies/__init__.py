"""What is asked of a question: a file each, plain functions from a team to a `Strategy`."""
