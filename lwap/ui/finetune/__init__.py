"""The Fine-tune page: a run is planned, watched, compared with others."""
