"""The operating system: child processes, temporary files, disk space."""
