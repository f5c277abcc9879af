"""Tables for papers and HTML reports, out of results.

May import `figures`, `analysis` and below.
"""
