"""Engine pool: several engines (GPUs, endpoints) that work as one."""
