"""What an exported file says about itself."""

from __future__ import annotations

import json
from importlib.metadata import version

from tutored.config import Config
from tutored.export.network import Network
from tutored.export.parity import Parity


def about(network: Network, config: Config, parity: Parity) -> dict[str, str]:
    """All that using the file takes: text, or JSON where it is a list or dictionary."""
    size = network.size
    return {
        "names": json.dumps(list(network.student.labels.names)),
        "preprocessing": f"RGB in 0..1, resized to {size} x {size} (bilinear with antialias, aspect ratio not kept)",
        "outputs": json.dumps(network.meanings),
        "decode": json.dumps(config.decode.model_dump()),
        "tasks": json.dumps(config.taught),
        "precision": "float16, inputs and outputs float32" if network.options.half else "float32",
        "checked": json.dumps(parity._asdict()),
        "run_id": config.run_id,
        "made_by": f"tutored {version('tutored')}",
    }
