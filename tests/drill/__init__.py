"""The drill: a bad day of the shop on its real processes, from the first failure to books that agree."""
