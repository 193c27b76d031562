"""A team of roles and what it is asked: trees of samples, passes, debates."""
