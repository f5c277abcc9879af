"""The Space page: two spaces of the same sentences, side by side."""
