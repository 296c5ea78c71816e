"""Tests of what docs/add-….md add to the shop. They run in a copy that has it; `test_extending` makes one."""
