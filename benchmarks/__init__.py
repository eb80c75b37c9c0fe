"""What tutored costs, as ratios measured side by side in one run: `python -m benchmarks`.

Absolute times mean little on shared machines; two things timed in turns, in one process, can be compared.
"""
