"""What can be done with payments: one transaction each."""
