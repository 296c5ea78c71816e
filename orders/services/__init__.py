"""The use cases of orders: one transaction each."""
