"""What pages are made of: the frame, the door to the models, state, and shared widgets."""
