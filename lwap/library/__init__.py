"""The models of one person: listed, renamed, deleted, imported, zipped.

May import `jobs` and below.
"""
