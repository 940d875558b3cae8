"""The KV cache as the scheduler sees it: block ids, tables and the prefix tree. No tensors, no torch."""
