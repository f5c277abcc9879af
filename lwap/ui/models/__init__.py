"""The Models page: all checkpoints, and what can be done with one."""
