"""Where a job runs: hosts, meshes of devices, the process and its end."""
