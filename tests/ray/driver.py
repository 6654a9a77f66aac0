"""A Ray cluster on this machine with Serve on a port; run by the Python that has Ray. Takes a line of JSON a command.

Started by `cluster.py`, with PORT and the folder of Ray's session as arguments.
"""

from __future__ import annotations

import json
import sys

import ray
from ray import serve

from deploy.ray.app import EngineArguments, build


def main() -> None:
    port, folder = int(sys.argv[1]), sys.argv[2]
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _temp_dir=folder,
        logging_level="warning",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "deploy":  # a second time: every replica is replaced
                serve.run(build(EngineArguments(**command)), blocking=False)
                say({"ok": True})
            case "status":
                [application] = serve.status().applications.values()
                states = application.deployments["engine"].replica_states
                say({str(state): number for state, number in states.items()})


def say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
