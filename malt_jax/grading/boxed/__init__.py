"""What runs inside the sandboxes: a program's process, and that of the tests it is held to."""
