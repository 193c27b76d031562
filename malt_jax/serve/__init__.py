"""The trained team behind an endpoint: an engine that batches all requests over one resident base,
and the HTTP face before it."""
