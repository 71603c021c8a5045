"""Values of widgets, and settings of their events: with a queue for work on the model, or without."""

from collections.abc import Mapping
from typing import Any

#: Values of widgets, by widget.
Values = Mapping[Any, Any]
#: Events that compute share one queue, since they share the machine.
QUEUED: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
QUICK: dict[str, Any] = {"queue": False, "api_visibility": "private"}
