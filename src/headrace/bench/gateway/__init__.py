"""What a gateway costs, and what its clients see of faults: headrace's and others' side by side."""
