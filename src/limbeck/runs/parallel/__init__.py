"""Work that consists of many like tasks, done by several processes: on this machine or a cluster."""
