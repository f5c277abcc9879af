"""What pages are made of: the frame, the door to the models, links, and shared widgets.

A module or folder with a page's name is its room; it imports what is shared, never another room.
"""
