"""What tutored costs, as ratios of things that are timed in turns in one process: `python -m benchmarks`.

`harness` times, draws and writes; `package` holds all that the benchmarks need of tutored; every other module is one
benchmark with a function `measure(work, scale)` that yields tables. `faults` is about damage, kills and full disks.
"""
