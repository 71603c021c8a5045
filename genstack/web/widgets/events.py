"""Events of widgets: their values, and the queue of those that compute."""

from collections.abc import Mapping
from typing import Any

#: Values of widgets, by widget.
Values = Mapping[Any, Any]
#: Events that compute share one queue, since they share the machine.
QUEUED: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
QUICK: dict[str, Any] = {"queue": False, "api_visibility": "private"}
