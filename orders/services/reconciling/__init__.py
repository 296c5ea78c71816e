"""The books against each other, against the providers' and against the engine's.

A check (one function for each, in a module for its subject) yields findings, and changes nothing. `running` runs
them all, keeps a row for each difference while it lasts, and mends what needs no person; `fixing` mends one.
"""
