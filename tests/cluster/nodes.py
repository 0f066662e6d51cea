"""Holds a Ray cluster on loopback: `nodes.py FOLDER COUNT` prints its address and the raylets' process numbers.

`ray start` refuses a second node on loopback; Ray's own tests start their nodes this way. It ends with its stdin.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ray.cluster_utils import Cluster


def main() -> None:
    folder, count = sys.argv[1], int(sys.argv[2])
    (Path(os.environ["RAY_TMPDIR"]) / "ray").mkdir()  # where the newest cluster's address is written
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "temp_dir": f"{folder}/r"})
    nodes = [cluster.head_node, *(cluster.add_node(**node) for _ in range(count - 1))]
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
