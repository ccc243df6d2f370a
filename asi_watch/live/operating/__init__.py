"""What the operator and the service manager see of the daemon and ask of it."""
