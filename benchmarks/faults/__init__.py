"""What happens to tutored when files are damaged, processes are killed and disks are full.

`python -m benchmarks.faults`: hypothesis damages every file that a reader takes, files made to do harm are read, and
`label`, `train` and `study run` are killed, stopped and kept from writing, and then resumed.
"""
