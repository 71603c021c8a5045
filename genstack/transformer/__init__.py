"""The transformer that conditions and priors share."""

from genstack.transformer.backbone import Backbone

__all__ = ["Backbone"]
