"""Choosing tokens: what is chosen, how often, and that neither the batch nor bad logits matter."""
