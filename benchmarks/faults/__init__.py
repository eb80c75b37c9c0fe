"""What happens to tutored when things go wrong: `python -m benchmarks.faults`.

Processes killed at random moments and before each change of a file, signals, full disks, closed pipes, files with
random damage, and files made to do harm. Everything is drawn from one seed, but for the moments of random kills.
"""
