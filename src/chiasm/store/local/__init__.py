"""What makes a store durable on a local disk: files, lock, journal, recovery, Lance datasets, verify."""
