"""The files that people bring, and the public sets: read, checked, downloaded.

May import `encoding` and below.
"""
