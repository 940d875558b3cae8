"""Loading a transformers model and running its own modeling code over a paged cache."""
