"""The config keys of each kind of task and of each student that the package brings; nothing here computes."""
