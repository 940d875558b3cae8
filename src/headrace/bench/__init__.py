"""Benchmarks that anyone can run: workloads, engines side by side, report."""
