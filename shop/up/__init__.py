"""`manage.py up`: the whole shop on one machine, for trying, demos and development.

Nothing in here needs Django: the supervisor only starts processes and watches them.
"""
